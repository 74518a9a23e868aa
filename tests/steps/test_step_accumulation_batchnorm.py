"""Gradient accumulation through BatchNorm: each micro-batch is normalised by itself."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn


def test_accumulated_through_batchnorm():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Sigmoid(), nn.Flatten(), nn.Linear(288, 4)
    )
    loss, x, y = nn.CrossEntropyLoss(), pictures(4), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        for xs, ys in zip(x.split(2), y.split(2)):
            (loss(model(xs), ys) / 2).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step, attacks=["gauss_newton"], budget="5s")
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
