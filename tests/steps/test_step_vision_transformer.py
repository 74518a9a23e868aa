"""A small vision transformer in timm's form: patches by a linear layer, class token, pre-norm blocks."""

from __future__ import annotations

import torch
from harness import judge, pictures
from torch import nn


class Transformer(nn.Module):
    def __init__(self, patch=3, dim=16):
        super().__init__()
        self.patch = patch
        self.patch_embed = nn.Conv2d(1, dim, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 5, dim) * 0.02)
        layer = nn.TransformerEncoderLayer(dim, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 4)

    def forward(self, x):
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embed
        return self.head(self.blocks(tokens)[:, 0])


def test_patches():
    torch.manual_seed(0)
    model, loss, x, y = Transformer(), nn.CrossEntropyLoss(), pictures(1), torch.tensor([2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        loss(model(x), y).backward()
        optimizer.step()

    seen = judge(model, optimizer, loss, step, attacks=["gauss_newton"], budget="15s")
    assert seen.status in ("leaks", "inconclusive"), seen.why
    assert all(attack.status != "failed" for attack in seen.audit.record.attacks)
