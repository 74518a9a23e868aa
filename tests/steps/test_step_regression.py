"""Regression: one number an example, squared error."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn


def test_one_example_needs_no_target():
    model, loss, x, y = mlp(outputs=1), nn.MSELoss(), pictures(1), torch.tensor([[0.7]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step)
    assert gives_away(seen.update, "1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)


def test_several_examples_are_no_crash():
    model, loss, x, y = mlp(outputs=2, activation=nn.Sigmoid), nn.SmoothL1Loss(), pictures(2), torch.randn(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step, attacks=["linear_layer", "gauss_newton"], budget="5s")
    assert seen.status in ("leaks", "inconclusive"), seen.why
    assert all(attack.status != "failed" for attack in seen.audit.record.attacks)
