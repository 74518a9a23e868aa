"""Cross-entropy with smoothed labels."""

from __future__ import annotations

import torch
from harness import judge, mlp, pictures
from torch import nn


def test_step():
    model, x, y = mlp(width=64), pictures(2), torch.tensor([2, 0])
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert (seen.status, seen.exact) == ("leaks", 2)
    assert seen.audit.record.attacks[0].label_accuracy == 1.0
