"""A second head with a loss of its own, which a simulation of the first alone would miss."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn
from torch.nn import functional as F


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp(outputs=16)
        self.head, self.auxiliary = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        features = self.body(x)
        return self.head(features), self.auxiliary(features)


def both(output, y):
    return F.cross_entropy(output[0], y) + 0.3 * F.cross_entropy(output[1], y)


def test_the_sum_is_the_loss():
    model, x, y = TwoHeads(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        both(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, both, step)
    assert gives_away(seen.update, "body.1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)


def test_only_the_first_is_told():
    model, x, y = TwoHeads(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        both(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, lambda output, y: F.cross_entropy(output[0], y), step)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
