"""Dropout as a module, in training mode."""

from __future__ import annotations

import torch
from harness import gives_away, judge, pictures
from torch import nn


def test_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
    loss, x, y = nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
