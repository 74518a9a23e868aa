"""The small convolutional network of Deep Leakage from Gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invertigo.models.building import Shape, registry
from invertigo.models.layers import activation as make_activation
from invertigo.models.layers import head, one_of, positive
from invertigo.types import Paper

UNIFORM_BOUND = 0.5


@registry.register("lenet")
class LeNet(nn.Module):
    """Three 5x5 convolutions of 12 channels (strides 2, 2, 1) and one linear layer; smooth when `activation` is.

    Args:
        width: Channels of each convolution.
        activation: After each convolution; the paper's is the sigmoid.
        hidden: Width of a linear layer before the last one; None for none, as published.
        init: `default` is PyTorch's; `uniform` draws every weight and bias from U(-0.5, 0.5), as the paper's code does.

    Source: Zhu et al. (2019).
    """

    paper = Paper(
        key="zhu2019deep",
        title="Deep Leakage from Gradients",
        authors="Zhu, Ligeng and Liu, Zhijian and Han, Song",
        year=2019,
        venue="Advances in Neural Information Processing Systems",
        arxiv="1906.08935",
    )

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        width: int = 12,
        activation: str = "sigmoid",
        hidden: int | None = None,
        init: str = "default",
    ) -> None:
        super().__init__()
        positive(width=width)
        one_of("init", init, ("default", "uniform"))
        channels, height, wide = input_shape
        layers: list[nn.Module] = []
        for stride in (2, 2, 1):
            layers += [nn.Conv2d(channels, width, 5, stride=stride, padding=2), make_activation(activation)]
            channels, height, wide = width, _strided(height, stride), _strided(wide, stride)
        self.body = nn.Sequential(*layers)
        self.head = head(width * height * wide, num_classes, hidden, activation)
        if init == "uniform":
            for parameter in self.parameters():
                torch.nn.init.uniform_(parameter, -UNIFORM_BOUND, UNIFORM_BOUND)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channel, height, width)."""
        return self.head(self.body(images).flatten(1))


def _strided(length: int, stride: int) -> int:
    return -(-length // stride)
