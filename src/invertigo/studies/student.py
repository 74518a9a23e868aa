"""Student's interval of a mean, without PyTorch: tables need nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import stdev

CONFIDENCE = 0.95


def half_width(values: Sequence[float | int]) -> float:
    """Half of the interval of the mean; 0 for a single value."""
    return _quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


@cache
def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
