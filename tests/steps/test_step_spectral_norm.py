"""Spectral norm on the first layer: its weight is computed, and its gradient follows from those it is computed from."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn
from torch.nn.utils import parametrizations


def test_step():
    torch.manual_seed(0)
    first = parametrizations.spectral_norm(nn.Linear(36, 32))
    model = nn.Sequential(nn.Flatten(), first, nn.Sigmoid(), nn.Linear(32, 4))
    loss, x, y = nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert (seen.status, seen.exact) == ("leaks", 1)
