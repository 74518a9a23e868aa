"""A gradient scaler: the loss is multiplied by 2^16 and the gradients divided again before the step."""

from __future__ import annotations

import torch
from harness import gives_away, gradients, judge, mlp, pictures, same
from torch import nn


def test_scaled_and_unscaled():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    expected = gradients(model, loss(model(x), y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    def step():
        scaler.scale(loss(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()

    seen = judge(model, optimizer, loss, step)
    assert same(seen.update, expected)
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
