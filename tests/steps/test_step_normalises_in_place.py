"""The model standardises its input in place, as `x.sub_(mean).div_(std)`."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


class Standardised(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x.sub_(0.4).div_(0.2))


def test_step():
    model, loss, x, y = Standardised(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x.clone()), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "net.1", (x[0] - 0.4) / 0.2)
    assert (seen.status, seen.exact) == ("leaks", 1)
