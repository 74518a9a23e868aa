"""Residual networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invertigo.models.building import Shape, registry
from invertigo.models.layers import activation as make_activation
from invertigo.models.layers import norm as make_norm
from invertigo.models.layers import one_of, positive
from invertigo.types import InvalidValueError, Paper

DEPTHS = {8: (1, 1, 1), 18: (2, 2, 2, 2), 20: (3, 3, 3), 32: (5, 5, 5), 34: (3, 4, 6, 3)}
"""Blocks of each stage. Four stages start 64 channels wide, three stages 16."""


@registry.register("resnet")
class ResNet(nn.Module):
    """Stages of residual blocks after a 3x3 stem; each later stage halves the maps and doubles the channels.

    Args:
        depth: One of 8, 18, 20, 32, 34.
        blocks: Blocks of each stage, instead of `depth`.
        width: Channels of the first stage; None gives 64 to four stages and 16 to three.
        norm: `batch`, `group`, `layer` or `none`; without, the convolutions have biases.
        activation: Of the stem and the blocks.
        preactivation: Normalise and activate before each convolution rather than after it.
        skip: Whether a block's input is added to its output.

    With `norm="none"` nothing keeps the scale of the sums, so the last convolution of each of n residual blocks starts
    1/sqrt(n) times smaller.

    Source: He et al. (2016), sections 3.3 and 4.2; pre-activation: He et al., Identity Mappings in Deep Residual
    Networks (2016).
    """

    paper = Paper(
        key="he2016deep",
        title="Deep Residual Learning for Image Recognition",
        authors="He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
        year=2016,
        venue="IEEE Conference on Computer Vision and Pattern Recognition",
        arxiv="1512.03385",
    )

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        depth: int = 18,
        blocks: Sequence[int] | None = None,
        width: int | None = None,
        norm: str = "batch",
        activation: str = "relu",
        preactivation: bool = False,
        skip: bool = True,
    ) -> None:
        super().__init__()
        counts = _counts(depth, blocks)
        width = width if width is not None else (64 if len(counts) > 3 else 16)
        positive(width=width)
        block = PreactivationBlock if preactivation else Block
        stem: list[nn.Module] = [_conv3x3(input_shape[0], width, 1, norm)]
        if not preactivation:
            stem += [make_norm(norm, width), make_activation(activation)]
        layers: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(counts):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(channels, width * 2**stage, stride, norm, activation, skip))
                channels = width * 2**stage
        if preactivation:
            layers += [make_norm(norm, channels), make_activation(activation)]
        self.stem, self.body = nn.Sequential(*stem), nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)
        self._initialise(sum(counts) if norm == "none" and skip else 1)

    def _initialise(self, residual_blocks: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            for block in self.body:
                if isinstance(block, (Block, PreactivationBlock)):
                    block.conv2.weight.mul_(residual_blocks**-0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channel, height, width)."""
        return self.head(self.body(self.stem(images)).mean(dim=(2, 3)))


class Block(nn.Module):
    """act(norm(conv(act(norm(conv(x))))) + shortcut(x)); the shortcut is a 1x1 convolution where shapes differ."""

    def __init__(self, channels: int, width: int, stride: int, norm: str, activation: str, skip: bool) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, width, stride, norm)
        self.norm1 = make_norm(norm, width)
        self.activation = make_activation(activation)
        self.conv2 = _conv3x3(width, width, 1, norm)
        self.norm2 = make_norm(norm, width)
        self.shortcut = None
        if skip:
            same = stride == 1 and channels == width
            self.shortcut = nn.Identity() if same else _shortcut(channels, width, stride, norm)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of `width` channels, `stride` times smaller."""
        out = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(maps)))))
        return self.activation(out if self.shortcut is None else out + self.shortcut(maps))


class PreactivationBlock(nn.Module):
    """conv(act(norm(conv(act(norm(x)))))) + shortcut(x): the identity path stays free of normalisation."""

    def __init__(self, channels: int, width: int, stride: int, norm: str, activation: str, skip: bool) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, channels)
        self.activation = make_activation(activation)
        self.conv1 = _conv3x3(channels, width, stride, norm)
        self.norm2 = make_norm(norm, width)
        self.conv2 = _conv3x3(width, width, 1, norm)
        self.skip = skip
        resized = skip and (stride != 1 or channels != width)
        self.shortcut = nn.Conv2d(channels, width, 1, stride=stride, bias=False) if resized else None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of `width` channels, `stride` times smaller."""
        active = self.activation(self.norm1(maps))
        out = self.conv2(self.activation(self.norm2(self.conv1(active))))
        if not self.skip:
            return out
        return out + (maps if self.shortcut is None else self.shortcut(active))


def _counts(depth: int, blocks: Sequence[int] | None) -> tuple[int, ...]:
    if blocks is None:
        one_of("depth", depth, DEPTHS)
        return DEPTHS[depth]
    if not blocks:
        raise InvalidValueError("blocks is empty; give the number of blocks of each stage, e.g. (1, 1, 1).")
    positive(**{f"blocks[{i}]": count for i, count in enumerate(blocks)})
    return tuple(blocks)


def _conv3x3(channels: int, width: int, stride: int, norm: str) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=norm == "none")


def _shortcut(channels: int, width: int, stride: int, norm: str) -> nn.Module:
    conv = nn.Conv2d(channels, width, 1, stride=stride, bias=norm == "none")
    return nn.Sequential(conv, make_norm(norm, width))
