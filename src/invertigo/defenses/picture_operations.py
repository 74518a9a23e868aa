"""The picture operations of AutoAugment in plain PyTorch, differentiable, on pixels in [0, 1].

Each maps (batch, channel, height, width) to the same shape and range. What has no useful derivative (rounding, ranks)
passes it straight through. They follow Pillow up to its rounding to 8 bits; shearing interpolates linearly instead of
cubically, and a shift is a whole number of pixels as in Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

Pictures = Float[Tensor, "batch channel height width"]
LUMA = (0.299, 0.587, 0.114)


def grey(x: Tensor) -> Tensor:
    """(batch, 1, height, width) luminance; the mean over channels where there are not three."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return torch.einsum("bchw,c->bhw", x, x.new_tensor(LUMA)).unsqueeze(1)


def _away_from(base: Tensor, x: Tensor, factor: float) -> Tensor:
    return (base + factor * (x - base)).clamp(0, 1)


def brightness(x: Tensor, change: float) -> Tensor:
    """Pixels times `1 + change`."""
    return _away_from(torch.zeros_like(x), x, 1 + change)


def contrast(x: Tensor, change: float) -> Tensor:
    """Away from the mean luminance of the picture."""
    return _away_from(grey(x).mean((1, 2, 3), keepdim=True), x, 1 + change)


def color(x: Tensor, change: float) -> Tensor:
    """Away from the grey picture; pictures of one channel stay as they are."""
    return _away_from(grey(x), x, 1 + change)


def sharpness(x: Tensor, change: float) -> Tensor:
    """Away from the smoothed picture; the outermost pixels stay as they are."""
    kernel = x.new_tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13
    if min(x.shape[-2:]) < 3:
        return x
    inner = conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), groups=x.shape[1])
    inside = torch.nn.functional.pad(torch.ones_like(inner), (1, 1, 1, 1))
    return _away_from(torch.where(inside > 0, torch.nn.functional.pad(inner, (1, 1, 1, 1)), x), x, 1 + change)


def invert(x: Tensor, _: float = 0.0) -> Tensor:
    """Negative."""
    return 1 - x


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Negative of pixels from `threshold` (of 256) up."""
    return torch.where(x * 255 < threshold, x, 1 - x)


def posterize(x: Tensor, bits: float) -> Tensor:
    """The highest `bits` of 8, slope 1."""
    width = 2.0 ** (8 - int(bits))
    levels = ((x * 255 + 1e-4).floor() / width).floor() * width / 255
    return x + (levels - x).detach()


def autocontrast(x: Tensor, _: float = 0.0) -> Tensor:
    """Each channel stretched to the whole range."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = high - low < 1 / 255
    return torch.where(flat, x, (x - low) / (high - low).where(~flat, 1.0))


def equalize(x: Tensor, _: float = 0.0) -> Tensor:
    """Each channel to an even histogram of 256 levels, slope 1."""
    level = (x.detach() * 255).round().clamp(0, 255).flatten(2)
    counts = (level.unsqueeze(-1) == torch.arange(256, device=x.device)).to(x.dtype)
    histogram = counts.sum(2)
    below = histogram.cumsum(-1) - histogram
    highest = torch.einsum("bcpl,bcl->bcp", counts, histogram).gather(2, level.argmax(2, keepdim=True))
    total = level.shape[2] - highest
    table = torch.where(total > 0, (below / total.where(total > 0, 1.0)).clamp(0, 1), 0.0)
    evened = torch.where(total > 0, torch.einsum("bcpl,bcl->bcp", counts, table), level / 255).view_as(x)
    return x + (evened - x).detach()


def translate_x(x: Tensor, share: float) -> Tensor:
    """Shifted left by this share of the width; black moves in."""
    return _shift(x, round(share * x.shape[3]), 3)


def translate_y(x: Tensor, share: float) -> Tensor:
    """Shifted up by this share of the height; black moves in."""
    return _shift(x, round(share * x.shape[2]), 2)


def _shift(x: Tensor, by: int, dim: int) -> Tensor:
    size = x.shape[dim]
    place = torch.arange(size, device=x.device) + by
    shown = ((place >= 0) & (place < size)).to(x.dtype)
    return x.index_select(dim, place.clamp(0, size - 1)) * shown.view([-1 if d == dim else 1 for d in range(4)])


def shear_x(x: Tensor, slope: float) -> Tensor:
    """Rows moved sideways in proportion to their height; black moves in."""
    return _resample(x, (1.0, slope, 0.0, 0.0, 1.0, 0.0), 0.0)


def shear_y(x: Tensor, slope: float) -> Tensor:
    """Columns moved up in proportion to their place; black moves in."""
    return _resample(x, (1.0, 0.0, 0.0, slope, 1.0, 0.0), 0.0)


def rotate(x: Tensor, degrees: float) -> Tensor:
    """Counter-clockwise about the middle; grey moves in."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    w, h = x.shape[3] / 2, x.shape[2] / 2
    return _resample(x, (c, -s, w - c * w + s * h, s, c, h - s * w - c * h), 128 / 255)


def _resample(x: Tensor, affine: tuple[float, ...], fill: float) -> Tensor:
    """Linear interpolation at `(a x + b y + c, d x + e y + f)`, pixels having their middle at halves.

    A sum of four gathers, so that it can be differentiated in any mode and batched.
    """
    a, b, c, d, e, f = affine
    height, width = x.shape[2:]
    rows = torch.arange(height, dtype=torch.float64, device=x.device)[:, None] + 0.5
    columns = torch.arange(width, dtype=torch.float64, device=x.device)[None] + 0.5
    u, v = a * columns + b * rows + c - 0.5, d * columns + e * rows + f - 0.5
    flat, result = (x - fill).flatten(2), torch.zeros_like(x)
    for down in (0, 1):
        for right in (0, 1):
            i, j = v.floor() + down, u.floor() + right
            weight = (1 - (v - i).abs()) * (1 - (u - j).abs())
            weight = weight * ((i >= 0) & (i < height) & (j >= 0) & (j < width))
            index = (i.clamp(0, height - 1) * width + j.clamp(0, width - 1)).long().flatten()
            result = result + (flat.index_select(2, index) * weight.flatten().to(x)).view_as(x)
    return (result + fill).clamp(0, 1)


OPERATIONS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "autocontrast": autocontrast,
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "equalize": equalize,
    "invert": invert,
    "posterize": posterize,
    "rotate": rotate,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "solarize": solarize,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
