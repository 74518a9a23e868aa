"""A recurrent network that reads a picture row by row."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.GRU(6, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.rnn(x.squeeze(1))[1][-1])


def test_rows():
    model, loss, x, y = Rows(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step, attacks=["linear_layer", "gauss_newton"], budget="8s")
    assert seen.status in ("leaks", "inconclusive"), seen.why
    assert all(attack.status != "failed" for attack in seen.audit.record.attacks)
