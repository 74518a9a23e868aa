"""Gradients clipped by their norm between backward and step: one factor, which no ratio notices."""

from __future__ import annotations

import torch
from harness import gives_away, gradients, judge, mlp, pictures, same
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    raw = gradients(model, loss(model(x), y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    size = torch.stack([g.norm() for g in raw.values()]).norm()
    assert same(seen.update, {name: g * 0.1 / (size + 1e-6) for name, g in raw.items()})
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
