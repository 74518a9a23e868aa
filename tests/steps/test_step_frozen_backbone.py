"""A frozen backbone: only the head is trained, and only its features are in the update."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    model[1].requires_grad_(False)
    features = model[:3](x)
    optimizer = torch.optim.SGD(model[3].parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert set(seen.update) == {"3.weight", "3.bias"}
    assert gives_away(seen.update, "3", features[0])  # the features, not the picture
    assert seen.status == "inconclusive", seen.why
