"""A keyword input with a default, which a simulation without it would silently leave out."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


class Conditioned(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.meta = mlp(), nn.Linear(3, 4)

    def forward(self, x, meta=None):
        logits = self.net(x)
        return logits if meta is None else logits * self.meta(meta)


def test_keyword():
    model, loss, x, y = Conditioned(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    meta = torch.randn(1, 3, generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x, meta=meta), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step, attacks=None, budget="6s")
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
    if seen.status != "refused":
        assert gives_away(seen.update, "net.1", x[0])
