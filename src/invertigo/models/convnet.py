"""The eight-layer convolutional network of Inverting Gradients."""

from __future__ import annotations

from torch import Tensor, nn

from invertigo.models.building import Shape, registry
from invertigo.models.layers import activation as make_activation
from invertigo.models.layers import head, positive
from invertigo.models.layers import norm as make_norm
from invertigo.types import Paper

WIDTHS = (1, 2, 2, 4, 4, 4, 4, 4)
POOLED = (5, 7)
"""Convolutions after which the maps are pooled, 3 by 3."""


@registry.register("convnet")
class ConvNet(nn.Module):
    """Eight 3x3 convolutions with BatchNorm and ReLU, two 3x3 max-poolings, one linear layer; 2.9 M weights.

    Maps smaller than 3 pixels are pooled whole, so that 8x8 images fit too; from 9 pixels on it is the published one.

    Args:
        width: Channels of the first layer; later ones have two and four times as many.
        activation: After each normalisation.
        norm: `batch`, `group`, `layer` or `none`.
        hidden: Width of a linear layer before the last one; None for none, as published.

    Source: Geiping et al. (2020).
    """

    paper = Paper(
        key="geiping2020inverting",
        title="Inverting Gradients: How Easy Is It to Break Privacy in Federated Learning?",
        authors='Geiping, Jonas and Bauermeister, Hartmut and Dr{\\"o}ge, Hannah and Moeller, Michael',
        year=2020,
        venue="Advances in Neural Information Processing Systems",
        arxiv="2003.14053",
    )

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        width: int = 64,
        activation: str = "relu",
        norm: str = "batch",
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        positive(width=width)
        channels, height, wide = input_shape
        self.body = nn.Sequential()
        for index, factor in enumerate(WIDTHS):
            self.body.add_module(f"conv{index}", nn.Conv2d(channels, factor * width, 3, padding=1))
            self.body.add_module(f"norm{index}", make_norm(norm, factor * width))
            self.body.add_module(f"activation{index}", make_activation(activation))
            channels = factor * width
            if index in POOLED:
                window = min(3, height), min(3, wide)
                self.body.add_module(f"pool{index}", nn.MaxPool2d(window))
                height, wide = height // window[0], wide // window[1]
        self.head = head(channels * height * wide, num_classes, hidden, activation)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channel, height, width)."""
        return self.head(self.body(images).flatten(1))
