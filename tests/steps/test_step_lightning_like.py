"""A loop in Lightning's form: the module computes its loss in `training_step`, the trainer calls the rest."""

from __future__ import annotations

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn
from torch.nn import functional as F


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def test_training_step():
    module, x, y = Classifier(), pictures(1), torch.tensor([2])
    optimizer = module.configure_optimizers()

    def step():
        def closure():
            optimizer.zero_grad()
            value = module.training_step((x, y))
            value.backward()
            return value

        optimizer.step(closure)

    seen = judge(module, optimizer, F.cross_entropy, step)
    assert seen.status in ("leaks", "refused"), seen.why
    if seen.status == "leaks":
        assert gives_away(seen.update, "net.1", x[0])


def test_training_step_without_a_closure():
    module, x, y = Classifier(), pictures(1), torch.tensor([2])
    optimizer = module.configure_optimizers()

    def step():
        module.training_step((x, y)).backward()
        optimizer.step()

    seen = judge(module, optimizer, F.cross_entropy, step)
    assert gives_away(seen.update, "net.1", x[0])
    assert (seen.status, seen.exact) == ("leaks", 1)
