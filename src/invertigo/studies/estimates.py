"""An estimate with its interval, for as few cells as studies have and as many as they may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

from invertigo.studies.student import CONFIDENCE, half_width
from invertigo.types import Interval

if TYPE_CHECKING:
    from torch import Tensor

FEW = 10
"""Below this many values the bootstrap is too narrow, so the interval is at least as wide as Student's t."""

MANY = 2000
"""Above this many values the normal theory is exact enough, and far cheaper than resampling."""


def mean_interval(values: Sequence[float | int]) -> Interval:
    """The mean of `values` with a bootstrap interval (BCa); never narrower than Student's t for fewer than FEW."""
    import torch

    from invertigo.evaluation import bootstrap

    if len(values) > MANY:
        return student_interval(values)
    found = bootstrap(
        torch.tensor(values, dtype=torch.float64), generator=torch.Generator().manual_seed(0), confidence=CONFIDENCE
    )
    return _widened(found, student_interval(values)) if 2 <= len(values) < FEW else found


def ratio_interval(first: Sequence[float | int], second: Sequence[float | int]) -> Interval | None:
    """mean(first) / mean(second) over pairs, resampled together; None when the denominator's mean is not positive.

    Student's t, for few pairs and for very many, is taken of R + (first - R second) / mean(second), whose mean is
    the ratio R and whose spread is the ratio's to first order.
    """
    bottom = fmean(second)
    if bottom <= 0:
        return None
    ratio = fmean(first) / bottom
    linear = student_interval([ratio + (a - ratio * b) / bottom for a, b in zip(first, second)])
    if len(first) > MANY:
        return linear
    found = _resampled(first, second, lambda a, b: a.mean(-1) / b.mean(-1))
    return _widened(found, linear) if 2 <= len(first) < FEW else found


def correlation_interval(x: Sequence[float | int], y: Sequence[float | int]) -> Interval | None:
    """Spearman's rank correlation of x and y over cells; None when one of them does not vary.

    Resampled cells can all lie on one rank, where a correlation has no meaning; such a resample counts as 0.
    Fisher's z with the variance 1.06 / (n - 3) replaces the bootstrap for many cells and widens it for few.

    Source: Fieller, Hartley and Pearson, "Tests for rank correlation coefficients. I", Biometrika 44, 1957.
    """
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    if len(x) > MANY:
        return _fisher(_spearman(*_tensors(x, y)).item(), len(x))
    found = _resampled(x, y, _spearman)
    return _widened(found, _fisher(found.estimate, len(x))) if len(x) < FEW else found


def _resampled(
    x: Sequence[float | int], y: Sequence[float | int], statistic: Callable[[Tensor, Tensor], Tensor]
) -> Interval:
    """Bootstrap over pairs: what is resampled are their positions."""
    import torch

    from invertigo.evaluation import bootstrap

    first, second = _tensors(x, y)

    def of_positions(positions: Tensor) -> Tensor:
        index = positions.long()
        return statistic(first[index], second[index])

    positions = torch.arange(len(first), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    return bootstrap(positions, of_positions, generator=generator, confidence=CONFIDENCE)


def _spearman(x: Tensor, y: Tensor) -> Tensor:
    import torch
    from scipy.stats import rankdata

    def centred(values: Tensor) -> Tensor:
        ranks = torch.as_tensor(rankdata(values.numpy(), axis=-1), dtype=torch.float64)
        return ranks - ranks.mean(-1, keepdim=True)

    a, b = centred(x), centred(y)
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).nan_to_num(0.0)


def student_interval(values: Sequence[float | int]) -> Interval:
    """The mean of `values` with Student's interval."""
    n, mean, reach = len(values), fmean(values), half_width(values)
    return Interval(float(mean), float(mean - reach), float(mean + reach), n, CONFIDENCE)


def _fisher(estimate: float, n: int) -> Interval:
    if n <= 3:
        return Interval(estimate, -1.0, 1.0, n, CONFIDENCE)
    clipped = min(max(estimate, -1 + 1e-12), 1 - 1e-12)
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(1.06 / (n - 3))
    low, high = math.tanh(math.atanh(clipped) - reach), math.tanh(math.atanh(clipped) + reach)
    return Interval(estimate, min(low, estimate), max(high, estimate), n, CONFIDENCE)


def _widened(found: Interval, other: Interval) -> Interval:
    low, high = min(found.low, other.low), max(found.high, other.high)
    return Interval(found.estimate, low, high, found.n, found.confidence)


def _tensors(x: Sequence[float | int], y: Sequence[float | int]) -> tuple[Tensor, Tensor]:
    import torch

    return torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
