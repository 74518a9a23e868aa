"""A step with a closure, as some optimizers ask for: the gradient is computed inside `step`."""

from __future__ import annotations

import torch
from harness import gives_away, gradients, judge, mlp, pictures, same
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    raw = gradients(model, loss(model(x), y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        def closure():
            optimizer.zero_grad()
            value = loss(model(x), y)
            value.backward()
            return value

        optimizer.step(closure)

    seen = judge(model, optimizer, loss, step)
    assert seen.status in ("leaks", "refused"), seen.why
    if seen.status == "leaks":
        assert same(seen.update, raw)
        assert gives_away(seen.update, "1", x[0])
