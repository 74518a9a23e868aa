"""Dropout called as a function; on one example the kept neurons still show the picture."""

from __future__ import annotations

import torch
from harness import gives_away, judge, pictures
from torch import nn
from torch.nn import functional as F


class Dropping(nn.Sequential):
    def forward(self, x):
        return self[3](F.dropout(self[2](self[1](self[0](x))), 0.5, training=self.training))


def mlp():
    torch.manual_seed(0)
    return Dropping(nn.Flatten(), nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, 4))


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
