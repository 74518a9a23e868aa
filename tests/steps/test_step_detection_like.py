"""A detector's form: the model reads targets and returns a dictionary of losses."""

from __future__ import annotations

import torch
from harness import judge, mlp, pictures
from torch import nn
from torch.nn import functional as F


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(outputs=8)

    def forward(self, images, targets=None):
        boxes, scores = self.net(images).split(4, 1)
        if targets is None:
            return {"boxes": boxes, "scores": scores}
        return {"box": F.l1_loss(boxes, targets["boxes"]), "class": F.cross_entropy(scores, targets["labels"])}


def test_a_dictionary_of_losses():
    model, x = Detector(), pictures(1)
    targets = {"boxes": torch.rand(1, 4), "labels": torch.tensor([2])}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        sum(model(x, targets).values()).backward()
        optimizer.step()

    seen = judge(model, optimizer, lambda losses, _targets: sum(losses.values()), step)
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
