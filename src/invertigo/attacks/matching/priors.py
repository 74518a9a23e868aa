"""What an attacker believes about private images before seeing an update. Each prior returns one value per restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Statistics = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Belief:
    """What priors look at: candidate images (restart, batch, channel, height, width) and BatchNorm input statistics.

    `simulated[layer]` is the candidate's (mean, variance), each (restart, channel); `known` the private batch's.
    """

    images: Tensor
    simulated: Statistics
    known: Statistics | None


@runtime_checkable
class Prior(Protocol):
    """A weighted penalty on candidates."""

    def __call__(self, belief: Belief) -> Tensor:
        """(restart,) penalties, differentiable."""
        ...


@dataclass(frozen=True)
class TotalVariation:
    r"""Mean absolute (anisotropic) or Euclidean (isotropic) difference of neighbouring pixels, any channel count.

    Anisotropic: $w\,(\overline{|\partial_h x|} + \overline{|\partial_v x|})$.
    Isotropic: $w\,\overline{\sqrt{(\partial_h x)^2 + (\partial_v x)^2}}$ over the pixels that have both neighbours.
    Source: Rudin et al. 1992; as an image prior for this attack, Geiping et al. 2020.
    """

    weight: float
    isotropic: bool = False

    def __call__(self, belief: Belief) -> Tensor:
        """See `Prior`."""
        x = belief.images
        vertical, horizontal = x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]
        if not self.isotropic:
            return self.weight * (_mean(vertical.abs()) + _mean(horizontal.abs()))
        squares = vertical[..., :, :-1] ** 2 + horizontal[..., :-1, :] ** 2
        # The square root has no derivative at a flat patch; this keeps it finite without moving it visibly.
        return self.weight * _mean((squares + torch.finfo(x.dtype).eps).sqrt())


@dataclass(frozen=True)
class ImageNorm:
    r"""$w\,\overline{x^2}$ in the model's input space. Source: Yin et al. 2021 (GradInversion)."""

    weight: float

    def __call__(self, belief: Belief) -> Tensor:
        """See `Prior`."""
        return self.weight * _mean(belief.images**2)


@dataclass(frozen=True)
class BatchNormStatistics:
    r"""$w\sum_l a_l(\lVert\mu_l(x)-\mu_l\rVert_2 + \lVert\sigma^2_l(x)-\sigma^2_l\rVert_2)$, $a_1$ = `first_factor`.

    $\mu_l,\sigma^2_l$ are the private batch's statistics, which the adversary must know; biased variances.
    Source: Yin et al. 2021 (GradInversion).
    """

    weight: float
    first_factor: float = 1.0

    def __call__(self, belief: Belief) -> Tensor:
        """See `Prior`."""
        total = belief.images.new_zeros(belief.images.shape[0])
        if belief.known is None:
            return total
        for number, (name, (mean, variance)) in enumerate(belief.simulated.items()):
            known_mean, known_variance = belief.known[name]
            distance = _norm(mean - known_mean) + _norm(variance - known_variance)
            total = total + (self.first_factor if number == 0 else 1.0) * distance
        return self.weight * total


@dataclass(frozen=True)
class GroupConsistency:
    r"""$w\,\overline{(x_r - \bar x)^2}$: restarts are pulled to their mean after aligning each to it.

    Every restart is first shifted by the whole-pixel translation that correlates best with the plain mean.
    Source: Yin et al. 2021 (GradInversion); they register by RANSAC-flow, we by
    cross-correlation, which needs no network and handles the translations that convolutional attacks drift by.
    """

    weight: float

    def __call__(self, belief: Belief) -> Tensor:
        """See `Prior`."""
        x = belief.images
        if x.shape[0] == 1:
            return x.new_zeros(1)
        with torch.no_grad():
            target = _aligned_mean(x)
        return self.weight * _mean((x - target) ** 2)


@dataclass(frozen=True)
class Multiplied:
    """A prior with a factor of its own for each restart, (restart,)."""

    prior: Prior
    factors: Tensor

    def __call__(self, belief: Belief) -> Tensor:
        """See `Prior`."""
        return self.factors.to(belief.images) * self.prior(belief)

    def of(self, restart: int) -> Multiplied:
        """The same for one restart alone."""
        return Multiplied(self.prior, self.factors[restart : restart + 1])


def _aligned_mean(x: Tensor) -> Tensor:
    """Mean over restarts after shifting each image onto the plain mean; (1, batch, channel, height, width)."""
    mean = x.mean(0, keepdim=True)
    spectrum = torch.fft.rfft2(mean).conj() * torch.fft.rfft2(x)
    correlation = torch.fft.irfft2(spectrum, s=x.shape[-2:]).sum(2)  # restart batch height width
    best = correlation.flatten(2).argmax(-1)
    rows, columns = best // x.shape[-1], best % x.shape[-1]
    h = (torch.arange(x.shape[-2], device=x.device) + rows[..., None]) % x.shape[-2]
    w = (torch.arange(x.shape[-1], device=x.device) + columns[..., None]) % x.shape[-1]
    index = (h[..., :, None] * x.shape[-1] + w[..., None, :]).flatten(2)[:, :, None].expand(-1, -1, x.shape[2], -1)
    return x.flatten(3).gather(3, index).view_as(x).mean(0, keepdim=True)


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def _norm(difference: Tensor) -> Tensor:
    """Euclidean norm over channels whose derivative stays finite at zero."""
    return ((difference**2).sum(-1) + torch.finfo(difference.dtype).tiny).sqrt()
