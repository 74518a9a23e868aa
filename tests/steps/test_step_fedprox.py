"""FedProx: a proximal term, whose gradient is zero at the first step."""

from __future__ import annotations

import torch
from harness import gives_away, gradients, judge, mlp, pictures, same
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    raw = gradients(model, loss(model(x), y))
    anchor = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        proximal = sum((p - a).square().sum() for p, a in zip(model.parameters(), anchor))
        (loss(model(x), y) + 0.05 * proximal).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    if seen.status != "refused":
        assert same(seen.update, raw)
        assert gives_away(seen.update, "1", x[0])
    assert seen.status in ("leaks", "refused"), seen.why
