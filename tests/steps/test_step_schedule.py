"""A learning rate schedule inside the local epochs: three steps on one example, each with a smaller rate."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def step():
        for _ in range(3):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            schedule.step()

    seen = judge(model, optimizer, loss, step)
    moved = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    assert gives_away(moved, "1", x[0], 1e-3)  # every step adds a multiple of the same ratio
    assert seen.status in ("leaks", "refused"), seen.why
