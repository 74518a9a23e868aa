"""Gradient accumulation that forgets to divide: the update is twice the mean gradient."""

from __future__ import annotations

import torch
from harness import gradients, judge, mlp, pictures, same
from torch import nn


def test_accumulated():
    model, loss, x, y = mlp(width=64), nn.CrossEntropyLoss(), pictures(4), torch.arange(4)
    parts = [2, 2]
    losses = [loss(model(xs), ys) / 1 for xs, ys in zip(x.split(parts), y.split(parts))]
    expected = gradients(model, torch.stack(losses).sum())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        for xs, ys in zip(x.split(parts), y.split(parts)):
            (loss(model(xs), ys) / 1).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
    if seen.status != "refused":
        assert same(seen.update, expected)
