"""A contrastive loss of two views: the model runs twice, and the first layer's gradient is a sum of both."""

from __future__ import annotations

import torch
from harness import judge, mlp, pictures
from torch.nn import functional as F


def test_two_passes():
    model, x = mlp(), pictures(2)
    views = x, (x + 0.1 * pictures(2, seed=7)).clamp(0, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def contrast(one, other):
        return F.cross_entropy(one @ other.T, torch.arange(len(one)))

    def step():
        contrast(model(views[0]), model(views[1])).backward()
        optimizer.step()

    seen = judge(model, optimizer, contrast, step)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
    if seen.audit:
        assert all(attack.status != "failed" for attack in seen.audit.record.attacks)
