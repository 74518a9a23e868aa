"""A U-Net: one label a pixel, some of them ignored."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.middle = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        skip = self.down(x)
        return self.out(torch.cat([skip, self.up(self.middle(skip))], 1))


def test_a_label_for_each_pixel():
    torch.manual_seed(0)
    model, loss, x = UNet(), nn.CrossEntropyLoss(ignore_index=255), pictures(1)
    y = torch.randint(0, 3, (1, 6, 6), generator=torch.Generator().manual_seed(2))
    y[0, :2] = 255
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step, attacks=["linear_layer", "gauss_newton"], budget="8s")
    assert seen.status in ("leaks", "inconclusive", "refused"), seen.why
    if seen.audit:
        assert all(attack.status != "failed" for attack in seen.audit.record.attacks)
