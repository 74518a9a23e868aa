"""A step in the form of Hugging Face's Trainer: the loss is computed inside the model, which returns an object."""

from __future__ import annotations

from collections import OrderedDict

import torch
from harness import gives_away, judge, mlp, pictures
from torch import nn
from torch.nn import functional as F


class Output(OrderedDict):
    """Like `transformers.utils.ModelOutput`: a dictionary that is read by attribute and by position."""

    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else list(self.values())[key]


class ForImageClassification(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, pixel_values, labels=None):
        logits = self.net(pixel_values)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return Output(logits=logits) if loss is None else Output(loss=loss, logits=logits)


def test_loss_inside_the_model():
    model, x, y = ForImageClassification(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        model(pixel_values=x, labels=y).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seen = judge(model, optimizer, lambda output, _labels: output.loss, step)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
    if seen.status != "refused":
        assert gives_away(seen.update, "net.1", x[0])
        assert seen.status == "leaks"
