"""A model in double precision."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_step():
    model, loss, x, y = mlp().double(), nn.CrossEntropyLoss(), pictures(1).double(), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0], 1e-9)
    assert (seen.status, seen.exact) == ("leaks", 1)
