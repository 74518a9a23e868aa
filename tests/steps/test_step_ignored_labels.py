"""Examples without a label, marked with `ignore_index`: nothing of them is in the update."""

from __future__ import annotations

import torch
from harness import judge, mlp, pictures
from torch import nn


def test_step():
    model, loss, x, y = mlp(width=64), nn.CrossEntropyLoss(), pictures(3), torch.tensor([1, -100, 3])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert (seen.status, seen.exact) == ("leaks", 2)
