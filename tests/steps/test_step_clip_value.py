"""Gradients clipped value by value: what is cut off is lost, neurons below the limit keep their ratio."""

from __future__ import annotations

import torch
from harness import gradients, judge, mlp, pictures, same
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    raw = gradients(model, loss(model(x), y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.05)
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert same(seen.update, {name: g.clamp(-0.05, 0.05) for name, g in raw.items()})
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
