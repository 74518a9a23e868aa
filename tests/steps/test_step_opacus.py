"""Opacus: gradients of single examples are clipped, summed and noised by its own optimizer."""

from __future__ import annotations

import pytest
import torch
from harness import by_algebra, gives_away, judge, mlp, pictures
from torch import nn


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_private(noise):
    opacus = pytest.importorskip("opacus")
    model, loss, x, y = opacus.GradSampleModule(mlp()), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    optimizer = opacus.optimizers.DPOptimizer(
        inner, noise_multiplier=noise, max_grad_norm=0.1, expected_batch_size=1, generator=generator
    )

    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    if noise:
        assert (by_algebra(seen.update, "1") - x.flatten()).abs().max() > 0.2
        assert seen.status in ("inconclusive", "refused"), seen.why
    else:
        assert gives_away(seen.update, "1", x[0])
        assert (seen.status, seen.exact) == ("leaks", 1)
