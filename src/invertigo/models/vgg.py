"""VGG networks for small images."""

from __future__ import annotations

from torch import Tensor, nn

from invertigo.models.building import Shape, registry
from invertigo.models.layers import activation as make_activation
from invertigo.models.layers import norm as make_norm
from invertigo.models.layers import one_of, positive
from invertigo.types import Paper

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage."""
FACTORS = (1, 2, 4, 8, 8)


@registry.register("vgg")
class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each followed by 2x2 max-pooling, then the mean over space and one linear layer.

    On images under 32 pixels a stage that would leave single-pixel maps to the next one is not pooled: BatchNorm needs
    more than one value a channel to train on a single example.
    The paper's three wide linear layers are left out, as is usual for small images.

    Args:
        depth: 11, 13, 16 or 19.
        width: Channels of the first stage; later ones have 2, 4, 8 and 8 times as many.
        activation: After each normalisation.
        norm: `batch`, `group`, `layer` or `none`.

    Source: Simonyan and Zisserman (2015), table 1.
    """

    paper = Paper(
        key="simonyan2015very",
        title="Very Deep Convolutional Networks for Large-Scale Image Recognition",
        authors="Simonyan, Karen and Zisserman, Andrew",
        year=2015,
        venue="International Conference on Learning Representations",
        arxiv="1409.1556",
    )

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        depth: int = 11,
        width: int = 64,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        one_of("depth", depth, DEPTHS)
        positive(width=width)
        channels, height, wide = input_shape
        layers: list[nn.Module] = []
        for stage, (count, factor) in enumerate(zip(DEPTHS[depth], FACTORS)):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, factor * width, 3, padding=1))
                layers += [make_norm(norm, factor * width), make_activation(activation)]
                channels = factor * width
            if min(height, wide) > (1 if stage == len(FACTORS) - 1 else 3):
                layers.append(nn.MaxPool2d(2))
                height, wide = height // 2, wide // 2
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)
        for module in self.body:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channel, height, width)."""
        return self.head(self.body(images).mean(dim=(2, 3)))
