"""A compiled model, as a wrapper and in place."""

from __future__ import annotations

import pytest
import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


@pytest.mark.parametrize("in_place", [True, False])
def test_compiled(in_place):
    torch._dynamo.reset()
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    if in_place:
        model.compile(backend="aot_eager")
    else:
        model = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
