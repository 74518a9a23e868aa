"""A temporal-difference loss in which (B, A) against (B, 1) broadcasts silently."""

from __future__ import annotations

import torch
from harness import gradients, judge, mlp, pictures, same
from torch.nn import functional as F


def test_broadcast():
    model, x = mlp(), pictures(2)
    reward = torch.tensor([[1.0], [0.0]])
    expected = gradients(model, (model(x) - reward).square().mean())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        F.mse_loss(model(x), reward).backward()
        optimizer.step()

    seen = judge(model, optimizer, F.mse_loss, step)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
    if seen.status != "refused":
        assert same(seen.update, expected)
