"""Pixels that no visible entry tells, and pixels that were told through noise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from invertigo.attacks.completion import Completed

INSIDE = 0.95
"""Share of the hidden entries that must be smaller or larger than all that were sent, for a mask by magnitude."""
LEVELS = 0.05
"""Different magnitudes, as a share of the entries, under which these were rounded."""
WIDTHS = (0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
KEPT = (0.0, 0.25, 0.5, 0.75)
FILLING = 300


def few_levels(matrix: Tensor) -> bool:
    """The entries were rounded to few magnitudes (quantised, or their signs): zeros among them are values.

    These are whole multiples of one step, as the entries behind an image of few colours are not.
    """
    sent = matrix[matrix != 0].abs()
    levels = sent.unique()
    if len(sent) <= 20 or len(levels) >= LEVELS * len(sent):
        return False
    steps = levels / levels[0]
    return bool(((steps - steps.round()).abs() < 1e-3).all())


def bound_of_hidden(matrix: Tensor, seen: Tensor, fit: Completed) -> float | None:
    r"""How large $|z_j|$ can be in a column of which nothing was sent: $\tau/\max_i|u_i|$.

    That is when entries below $\tau$, or beyond the largest sent, were left out; None where the known entries do not
    bear it out.
    """
    left, right = fit.left[:, 0], fit.right[:, 0]
    known = (left != 0)[:, None] & (right != 0)[None]
    hidden = (fit.matrix.abs())[known & ~seen]
    sent = matrix[seen].abs()
    if not len(hidden) or not len(sent):
        return None
    outside = (hidden <= 1.05 * sent.min()) | (hidden >= 0.95 * sent.max())
    return float(sent.min() / left.abs().max()) if float(outside.double().mean()) >= INSIDE else None


def filled(images: Tensor, seen: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`images` (1, channel, row, column) with unseen pixels filled in smoothly from their neighbours, within bounds."""
    if bool(seen.all()) or not bool(seen.any()):
        return images
    mean = (images * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True).clamp_min(1)
    images = torch.where(seen, images, torch.minimum(torch.maximum(mean, low), high))
    cross = images.new_tensor([[0.0, 0.25, 0.0], [0.25, 0.0, 0.25], [0.0, 0.25, 0.0]])
    for _ in range(FILLING):
        around = torch.minimum(torch.maximum(_filtered(images, cross), low), high)
        images = torch.where(seen, images, around)
    return images


def smoothed(images: Tensor, variance: Tensor) -> tuple[Tensor, float]:
    r"""`images` (1, channel, row, column) with noise of known `variance` (same shape), as smooth as pays.

    Of a family of linear smoothers $S$ the one with the least unbiased estimate of the risk,
    $\lVert x-Sx\rVert^2-\sum_j\sigma_j^2+2\sum_j S_{jj}\sigma_j^2$; leaving the image alone is one of them.

    Source: Stein (1981), Estimation of the Mean of a Multivariate Normal Distribution.
    """
    noise = float(variance.sum())
    best, least = images, noise
    for width in WIDTHS:
        kernel = _gaussian(width).to(images)
        smooth, centre = _filtered(images, kernel), float(kernel[kernel.shape[0] // 2, kernel.shape[0] // 2])
        for kept in KEPT:
            candidate = kept * images + (1 - kept) * smooth
            own = kept + (1 - kept) * centre
            risk = float((images - candidate).square().sum()) - noise + 2 * own * noise
            if risk < least:
                best, least = candidate, risk
    return best, least / noise if noise > 0 else 1.0


def _gaussian(width: float) -> Tensor:
    reach = max(1, round(3 * width))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / width).square())
    return torch.outer(line, line) / line.sum() ** 2


def _filtered(images: Tensor, kernel: Tensor) -> Tensor:
    reach = len(kernel) // 2
    padded = pad(images, (reach,) * 4, mode="replicate")
    channels = images.shape[1]
    return conv2d(padded, kernel.expand(channels, 1, *kernel.shape), groups=channels)
