"""A small residual network with GroupNorm."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(2, 8) for _ in range(2))

    def forward(self, x):
        return torch.relu(x + self.norms[1](self.two(torch.relu(self.norms[0](self.one(x))))))


def test_residual():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), Block(), nn.Flatten(), nn.Linear(288, 4)
    )
    loss, x, y = nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step, attacks=["gauss_newton"], budget="10s")
    assert seen.status in ("leaks", "inconclusive"), seen.why
    assert all(attack.status != "failed" for attack in seen.audit.record.attacks)
