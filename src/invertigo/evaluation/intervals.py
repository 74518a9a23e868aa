"""Confidence intervals for few examples: bootstrap for any statistic, Wilson's for a proportion."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.types import Interval, InvalidValueError, MismatchError

Statistic = Callable[[Tensor], Tensor]
"""Reduces the last dimension of a (..., n) tensor."""


def mean(values: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """The mean over the last dimension."""
    return values.mean(-1)


def bootstrap(
    values: Float[Tensor, " n"],
    statistic: Statistic = mean,
    *,
    generator: torch.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of `statistic` over `values`.

    The ends are the quantiles Φ(z0 + (z0 + z) / (1 - a (z0 + z))) of the resampled statistic, for z = Φ⁻¹ of
    (1 ∓ confidence) / 2, where z0 is the bias (Φ⁻¹ of the share of resamples below the estimate, ties half) and a the
    acceleration (a sixth of the skewness of the jackknife).

    One value has no spread, and equal values show none: the interval is then the estimate itself, and `n` is what
    warns the reader. Raises: InvalidValueError for no values, or a confidence outside (0, 1).

    Source: Efron, "Better bootstrap confidence intervals", Journal of the American Statistical Association 82, 1987.
    """
    _check(len(values), confidence)
    sample = values.detach().double()
    estimate = statistic(sample).item()
    draws = torch.randint(len(sample), (resamples, len(sample)), generator=generator, device=generator.device)
    replicates = statistic(sample[draws.to(sample.device)]).sort().values
    if len(sample) < 2 or replicates[0] == replicates[-1]:
        return Interval(estimate, estimate, estimate, len(sample), confidence)
    low, high = _corrected_levels(sample, statistic, replicates, estimate, confidence)
    ends = torch.quantile(replicates, replicates.new_tensor([low, high]))
    return Interval(estimate, ends[0].item(), ends[1].item(), len(sample), confidence)


def paired_difference(
    first: Float[Tensor, " n"],
    second: Float[Tensor, " n"],
    statistic: Statistic = mean,
    *,
    generator: torch.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Bootstrap interval of `statistic(first - second)` over the same examples, e.g. with and without a defense.

    Pairs are drawn together, so what varies between examples alone does not widen the interval.
    """
    if first.shape != second.shape:
        raise MismatchError(
            f"A paired comparison needs the same examples on both sides, not {len(first)} and {len(second)} values."
        )
    return bootstrap(first - second, statistic, generator=generator, resamples=resamples, confidence=confidence)


def proportion(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for `successes` out of `n`; sound for none and for all of them.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22, 1927.
    """
    _check(n, confidence)
    if not 0 <= successes <= n:
        raise InvalidValueError(f"{successes} successes out of {n} examples make no proportion.")
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(share, max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach)), n, confidence)


def _corrected_levels(
    sample: Tensor, statistic: Statistic, replicates: Tensor, estimate: float, confidence: float
) -> tuple[float, float]:
    normal, count = NormalDist(), len(replicates)
    below = ((replicates < estimate).sum() + (replicates == estimate).sum() / 2).item() / count
    bias = normal.inv_cdf(min(max(below, 0.5 / count), 1 - 0.5 / count))
    keep = ~torch.eye(len(sample), dtype=torch.bool, device=sample.device)
    left_out = statistic(sample.expand(len(sample), -1)[keep].view(len(sample), -1))
    deviation = left_out.mean() - left_out
    spread = deviation.square().sum().item() ** 1.5
    acceleration = deviation.pow(3).sum().item() / (6 * spread) if spread else 0.0

    def level(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1 - acceleration * z))

    return level((1 - confidence) / 2), level((1 + confidence) / 2)


def _check(n: int, confidence: float) -> None:
    if n < 1:
        raise InvalidValueError("There are no examples, so there is nothing to estimate.")
    if not 0 < confidence < 1:
        raise InvalidValueError(f"confidence is {confidence}; it must lie between 0 and 1, e.g. 0.95.")
