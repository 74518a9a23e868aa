"""A model whose parameters themselves are in bfloat16."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_step():
    model, loss, y = mlp().bfloat16(), nn.CrossEntropyLoss(), torch.tensor([2])
    x = pictures(1).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0], 0.02)
    assert seen.status == "leaks"
