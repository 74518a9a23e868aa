"""Normalisation inside the model, as a module with buffers."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1, 1), 0.45))
        self.register_buffer("std", torch.full((1, 1, 1, 1), 0.22))

    def forward(self, x):
        return (x - self.mean) / self.std


def test_the_picture_follows_through_the_normalisation():
    model, loss, x, y = nn.Sequential(Normalise(), mlp()), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1.1", (x[0] - 0.45) / 0.22, 1e-3)
    assert (seen.status, seen.exact) == ("leaks", 1)
