"""The first layer is called twice: its gradient is a sum, and the ratio is no picture."""

from __future__ import annotations

import torch
from harness import gives_away, judge, pictures
from torch import nn


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(36, 36), nn.Linear(36, 4)

    def forward(self, x):
        return self.last(torch.tanh(self.first(torch.tanh(self.first(x.flatten(1))))))


def test_step():
    model, loss, x, y = Twice(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert not gives_away(seen.update, "first", x[0], 0.05)
    assert seen.status == "inconclusive"
    assert all(not attack.outcomes for attack in seen.audit.record.attacks)  # nothing is called exact
