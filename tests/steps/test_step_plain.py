"""The plainest step there is, which all others differ from in one thing."""

from __future__ import annotations

import torch
from harness import gives_away, gradients, judge, mlp, pictures, same
from torch import nn


def test_one_example_is_given_away():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    expected = gradients(model, loss(model(x), y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert same(seen.update, expected)
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
