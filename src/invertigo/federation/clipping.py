"""What happened to the gradients between the backward pass and the optimizer's step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from invertigo.federation.comparison import flat

NEAR = 1e-5
"""Relative difference of float32 gradients that count as the same."""


@dataclass(frozen=True)
class Change:
    """`none`; `scaled` by `factor` (clipping by norm, unscaling); `clamped` at `bound` (by value, after `factor`); or
    `other`. `norm` is the norm that the optimizer used.
    """

    kind: Literal["none", "scaled", "clamped", "other"]
    factor: float = 1.0
    bound: float = 0.0
    norm: float = 0.0


def change_of(raw: Mapping[str, Tensor], used: Mapping[str, Tensor]) -> Change:
    """How the gradients that the optimizer `used` came from those that backward left."""
    a, b = flat(raw), flat(used)
    size, norm = a.norm().item(), b.norm().item()
    near = NEAR if next(iter(used.values())).element_size() > 2 else 1e-2
    if (a - b).norm() <= near * size:
        return Change("none", norm=norm)
    if not size or not norm:
        return Change("other", norm=norm)
    factor = ((a @ b) / (a @ a)).item()
    if factor > 0 and (b - factor * a).norm() <= near * norm:
        return Change("scaled", factor, norm=norm)
    bound = b.abs().max().item()
    inside = (b.abs() < bound) & (a != 0)
    factor = (b[inside] / a[inside]).median().item() if inside.any() else 1.0
    if factor > 0 and (b - (factor * a).clamp(-bound, bound)).norm() <= near * norm:
        return Change("clamped", factor, bound, norm)
    return Change("other", norm=norm)
