"""Cross-entropy with class weights: its mean is over weights, not over examples."""

from __future__ import annotations

import torch
from harness import judge, mlp, pictures
from torch import nn


def test_step():
    model, x, y = mlp(width=128), pictures(3), torch.tensor([2, 0, 3])
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 5.0, 0.2]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert (seen.status, seen.exact) == ("leaks", 3)
    assert seen.audit.record.attacks[0].label_accuracy == 1.0
