"""Gradient accumulation over two micro-batches, each loss divided by their number."""

from __future__ import annotations

import torch
from harness import gradients, judge, mlp, pictures, same
from torch import nn


def test_accumulated():
    model, loss, x, y = mlp(width=64), nn.CrossEntropyLoss(), pictures(4), torch.arange(4)
    parts = [2, 2]
    losses = [loss(model(xs), ys) / 2 for xs, ys in zip(x.split(parts), y.split(parts))]
    expected = gradients(model, torch.stack(losses).sum())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        for xs, ys in zip(x.split(parts), y.split(parts)):
            (loss(model(xs), ys) / 2).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
    if seen.status != "refused":
        assert same(seen.update, expected)
