"""Pictures and weights in channels-last memory."""

from __future__ import annotations

import torch
from harness import gives_away, judge, pictures
from torch import nn


def test_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 32), nn.ReLU(), nn.Linear(32, 4)).to(
        memory_format=torch.channels_last
    )
    loss, y = nn.CrossEntropyLoss(), torch.tensor([2])
    x = pictures(1, (3, 6, 6)).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0].contiguous())
    assert (seen.status, seen.exact) == ("leaks", 1)
