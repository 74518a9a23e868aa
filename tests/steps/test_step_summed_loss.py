"""A loss that is summed rather than averaged."""

from __future__ import annotations

import torch
from harness import judge, mlp, pictures
from torch import nn


def test_step():
    model, x, y = mlp(width=128), pictures(3), torch.tensor([2, 0, 3])
    loss = nn.CrossEntropyLoss(reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert (seen.status, seen.exact) == ("leaks", 3)
