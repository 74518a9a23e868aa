"""A moving average of the model is kept beside the step, which changes nothing."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_step():
    model, loss, x, y = mlp(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = torch.optim.swa_utils.AveragedModel(model)

    def step():
        loss(model(x), y).backward()
        optimizer.step()
        average.update_parameters(model)

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
