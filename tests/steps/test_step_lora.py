"""Adapters of low rank beside a frozen first layer."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(36, 32).requires_grad_(False)
        self.down, self.up = nn.Linear(36, 4, bias=False), nn.Linear(4, 32, bias=False)
        self.head = nn.Linear(32, 4).requires_grad_(False)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(torch.relu(self.base(x) + self.up(self.down(x))))


def test_step():
    model, loss, x, y = Adapted(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    down = model.down
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    row = seen.update["down.weight"][0]  # (rank, pixel): every row is a multiple of the picture
    assert torch.nn.functional.cosine_similarity(row, x.flatten(), dim=0).abs() > 1 - 1e-5
    assert down.weight.requires_grad
    assert seen.status in ("leaks", "inconclusive"), seen.why
    assert all(attack.status != "failed" for attack in seen.audit.record.attacks)
