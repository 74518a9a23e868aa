"""Several yes-or-no labels an example, with binary cross-entropy."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_the_signs_of_one_example():
    model, loss, x, y = mlp(), nn.BCEWithLogitsLoss(), pictures(1), torch.tensor([[1.0, 0, 1, 0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)


def test_three_examples_by_relu():
    model, loss, x = mlp(width=128), nn.BCEWithLogitsLoss(), pictures(3)
    y = torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 1]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    ratios = seen.update["1.weight"] / seen.update["1.bias"][:, None]
    shown = [float((ratios - one.flatten()).abs().amax(1).nan_to_num(1.0).min()) for one in x]
    assert max(shown) < 1e-3  # each picture stands in some neuron's ratio
    assert (seen.status, seen.exact) == ("leaks", 3)
