"""An L2 penalty added to the loss: the gradient holds the weights too, and ratios of neurons are off."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    l2 = 1e-3

    def step():
        penalty = sum(p.square().sum() for p in model.parameters())
        (loss(model(x), y) + l2 * penalty).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    if seen.status != "refused":
        weights = dict(model.named_parameters())
        before = {n: p.detach() + 0.1 * seen.update[n] for n, p in weights.items()}
        assert gives_away({n: g - 2 * l2 * before[n] for n, g in seen.update.items()}, "1", x[0], 1e-3)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
