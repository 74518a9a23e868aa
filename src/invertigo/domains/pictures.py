"""Tensors as PNG files."""

from __future__ import annotations

import io

import numpy
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

_WIDEST_DIFFERENCE = 0.5
_VIRIDIS = torch.tensor(
    [
        *[[68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140]],
        *[[40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37]],
    ]
)


def png(pixels: Float[Tensor, "channel height width"]) -> bytes:
    """A PNG of pixels in [0, 1]: one or two channels in grey (the first), three or more as RGB (the first three)."""
    shown = pixels[:3] if pixels.shape[0] >= 3 else pixels[:1]
    return _encoded((shown.clamp(0, 1) * 255).round().to(torch.uint8).cpu())


def difference_png(truth: Float[Tensor, "channel height width"], guess: Float[Tensor, "channel height width"]) -> bytes:
    """A PNG of the absolute difference, mean over channels, as colours that grow lighter with it.

    Dark violet is no difference, yellow half of the range or more; the same scale for all pictures. The colours are
    viridis, which readers with a colour deficiency can order, and which prints in grey.
    """
    strength = ((truth - guess).abs().mean(0) / _WIDEST_DIFFERENCE).clamp(0, 1).cpu()
    anchors = _VIRIDIS.to(strength)
    position = strength * (len(_VIRIDIS) - 1)
    below = position.floor().long().clamp_max(len(_VIRIDIS) - 2)
    mixed = torch.lerp(anchors[below], anchors[below + 1], (position - below).unsqueeze(-1))
    return _encoded(mixed.round().to(torch.uint8).movedim(-1, 0))


def _encoded(pixels: UInt8[Tensor, "channel height width"]) -> bytes:
    array = numpy.ascontiguousarray(pixels.movedim(0, -1).numpy())
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
