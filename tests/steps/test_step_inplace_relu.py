"""An in-place activation behind the first layer."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn


def test_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 128), nn.ReLU(inplace=True), nn.Linear(128, 4))
    loss, x, y = nn.CrossEntropyLoss(), pictures(3), torch.tensor([2, 0, 3])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert (seen.status, seen.exact) == ("leaks", 3)
