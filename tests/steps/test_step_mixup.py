"""MixUp in the loop: the model reads a mixture of two pictures, and the mixture is what leaks."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(2), torch.tensor([2, 0])
    mixed = 0.7 * x[:1] + 0.3 * x[1:]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        output = model(mixed)
        (0.7 * loss(output, y[:1]) + 0.3 * loss(output, y[1:])).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert seen.status in ("leaks", "refused"), seen.why
    if seen.status == "leaks":
        assert gives_away(seen.update, "1", mixed[0])
