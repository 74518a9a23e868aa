"""Yes or no by one output and binary cross-entropy."""

from __future__ import annotations

import pytest
import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


@pytest.mark.parametrize("squeezed", [True, False])
def test_one_example(squeezed):
    model = nn.Sequential(mlp(outputs=1), nn.Flatten(0)) if squeezed else mlp(outputs=1)
    x, y = pictures(1), torch.tensor([1.0]) if squeezed else torch.tensor([[1.0]])
    loss, optimizer = nn.BCEWithLogitsLoss(), torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "0.1" if squeezed else "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
    assert seen.audit.record.attacks[0].label_accuracy == 1.0
