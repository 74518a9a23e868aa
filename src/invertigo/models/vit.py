"""A small vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.models.building import Shape, registry
from invertigo.models.layers import activation as make_activation
from invertigo.models.layers import positive, probability
from invertigo.types import InvalidValueError, Paper

POSITION_SCALE = 0.02


@registry.register("vit")
class ViT(nn.Module):
    """Patches, a class token, learnt positions, pre-normalised transformer blocks, and a linear layer on the token.

    Images that are no multiple of the patch are padded with zeros at the right and at the bottom.

    Args:
        patch: Height and width of a patch in pixels.
        dim: Width of a token.
        depth: Number of blocks.
        heads: Attention heads; divides `dim`.
        mlp_ratio: Width of the blocks' hidden layer in units of `dim`.
        activation: Of the blocks' hidden layer.
        dropout: Probability after the embedding and after each of a block's two halves.

    Source: Dosovitskiy et al. (2021), much smaller.
    """

    paper = Paper(
        key="dosovitskiy2021image",
        title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        authors="Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and "
        "Zhai, Xiaohua and Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias and Heigold, Georg and "
        "Gelly, Sylvain and Uszkoreit, Jakob and Houlsby, Neil",
        year=2021,
        venue="International Conference on Learning Representations",
        arxiv="2010.11929",
    )

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        patch: int = 4,
        dim: int = 96,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: int = 2,
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        positive(patch=patch, dim=dim, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
        probability(dropout=dropout)
        if dim % heads:
            raise InvalidValueError(
                f"dim is {dim} and heads is {heads}; the heads share dim equally, so they divide it."
            )
        channels, height, width = input_shape
        self.padding = (0, -width % patch, 0, -height % patch)
        tokens = -(-height // patch) * -(-width // patch)
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, 1 + tokens, dim) * POSITION_SCALE)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(TransformerBlock(dim, heads, mlp_ratio * dim, activation, dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channel, height, width)."""
        patches = self.embed(F.pad(images, self.padding)).flatten(2).transpose(1, 2)  # batch token dim
        tokens = torch.cat([self.token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = self.blocks(self.dropout(tokens + self.positions))
        return self.head(self.norm(tokens[:, 0]))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, hidden: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), make_activation(activation), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, token, dim)."""
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens)))
        return tokens + self.dropout(self.mlp(self.norm2(tokens)))


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v in every head.

    Written out: PyTorch's fused kernels cannot be differentiated twice, which every attack needs.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, token, dim)."""
        split = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1))  # batch token 3 head d
        query, key, value = split.unbind(dim=2)
        weights = torch.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights.softmax(dim=-1), value)
        return self.project(mixed.flatten(2))
