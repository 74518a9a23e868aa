"""The range of pixels nobody told us: by convention where one fits, else as observed."""

from __future__ import annotations

import torch
from torch import Tensor

_CONVENTIONS = ((0.0, 1.0), (-1.0, 1.0))


def infer_range(images: Tensor) -> tuple[float, float, bool]:
    """Lowest and highest pixel value of `images`, and whether they had to be observed in the images themselves.

    Values inside [0, 1] or [-1, 1] are taken to use that range, whole numbers inside [0, 255] to be bytes. Anything
    else (say, images normalised by a mean and a deviation) gets the extremes observed in the batch.
    """
    low, high = images.min().item(), images.max().item()
    for lowest, highest in _CONVENTIONS:
        if lowest <= low and high <= highest and images.is_floating_point():
            return lowest, highest, False
    if low >= 0 and high <= 255 and (not images.is_floating_point() or torch.equal(images, images.round())):
        return 0.0, 255.0, False
    return (low, high, True) if high > low else (low, low + 1.0, True)
