"""Two inputs, the second one positional: what it was is part of the step."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


class WithMeta(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.meta = mlp(), nn.Linear(3, 4)

    def forward(self, x, meta):
        return self.net(x) + self.meta(meta)


def test_two_positional_inputs():
    model, loss, x, y = WithMeta(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    meta = torch.randn(1, 3, generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x, meta), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "net.1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
