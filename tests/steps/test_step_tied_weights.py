"""Tied weights: the last layer is the first one transposed, as in an autoencoder with a classifier."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn
from torch.nn import functional as F


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(36, 16)
        self.bias = nn.Parameter(torch.zeros(36))

    def forward(self, x):
        return F.linear(torch.sigmoid(self.first(x.flatten(1))), self.first.weight.T, self.bias)


def test_step():
    model, loss, x = Tied(), nn.MSELoss(), pictures(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), x.flatten(1)).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
    if seen.audit:
        assert all(attack.status != "failed" for attack in seen.audit.record.attacks)
