"""Mixed precision: the forward pass under bfloat16 autocast, the parameters in float32."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_autocast():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(x)
        loss(output.float(), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0], 0.02)  # bfloat16 keeps 8 bits
    assert seen.status == "leaks"
