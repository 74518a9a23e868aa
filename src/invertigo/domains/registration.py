"""Small shifts between two pictures: through convolutions, attacks get pictures right but out of place."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

_REACH = 8
"""Shifts of up to one part in this many of the side are looked at, either way."""


def standardised(images: Float[Tensor, "n channel height width"]) -> Float[Tensor, "n channel height width"]:
    """Images less each channel's mean, of norm 1; a flat image becomes zero, since rounding is no structure."""
    centred = images - images.mean((-2, -1), keepdim=True)
    norm = centred.flatten(1).norm(dim=1)[:, None, None, None]
    rounding = 64 * torch.finfo(images.dtype).eps * centred[0].numel() ** 0.5
    return torch.where(norm > rounding, centred / norm.clamp_min(rounding), torch.zeros_like(centred))


def correlations(
    a: Complex[Tensor, "*n channel height half"], b: Complex[Tensor, "*m channel height half"], size: tuple[int, int]
) -> Float[Tensor, "pairs height width"]:
    """Circular correlation of images given by their `rfft2`, at every small shift; -1 where the shift is too large.

    Entry (dy, dx) belongs to `b` rolled by (dy, dx), negative shifts standing at the end.
    """
    every_shift = torch.fft.irfft2((a * b.conj()).sum(-3), s=size)
    rows, columns = (_within_reach(side, every_shift.device) for side in size)
    return every_shift.masked_fill(~(rows[:, None] & columns[None, :]), -1.0)


def registered(
    truth: Float[Tensor, "batch channel height width"], guess: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Each guess rolled by the small shift that correlates best with its truth."""
    size = (truth.shape[-2], truth.shape[-1])
    a, b = (torch.fft.rfft2(standardised(images)) for images in (truth, guess))
    best = correlations(a, b, size).flatten(1).argmax(1).tolist()
    return torch.stack([image.roll(divmod(shift, size[1]), (-2, -1)) for image, shift in zip(guess, best)])


def _within_reach(side: int, device: torch.device) -> Tensor:
    shift = torch.arange(side, device=device)
    return torch.minimum(shift, side - shift) <= side // _REACH
