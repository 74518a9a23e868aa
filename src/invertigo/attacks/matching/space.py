"""Candidates as named tensors with ranges, laid out as one flat vector per restart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SOFT_LABELS = "label_logits"


@dataclass(frozen=True)
class Field:
    """One unknown of the attack: its shape (without the restart dimension) and its range; None where unbounded."""

    shape: tuple[int, ...]
    low: Tensor | None = None
    high: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Space:
    """The unknowns of an attack: `pack` and `unpack` go between named tensors and flat (restart, unknown) vectors."""

    fields: Mapping[str, Field]

    @property
    def size(self) -> int:
        """Number of unknowns of one restart."""
        return sum(field.size for field in self.fields.values())

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(restart, unknown) from tensors of shape (restart, *field.shape)."""
        return torch.cat([tensors[name].flatten(1) for name in self.fields], dim=1)

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Named tensors (restart, *field.shape) as views of `flat`."""
        parts = flat.split([field.size for field in self.fields.values()], dim=-1)
        return {name: part.unflatten(-1, field.shape) for (name, field), part in zip(self.fields.items(), parts)}

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of each unknown, (unknown,), infinite where a field has no range."""
        low, high = (
            torch.cat([_filled(field, side, infinity, like) for field in self.fields.values()])
            for side, infinity in (("low", -math.inf), ("high", math.inf))
        )
        return low, high


def _filled(field: Field, side: str, infinity: float, like: Tensor) -> Tensor:
    bound = getattr(field, side)
    if bound is None:
        return like.new_full((field.size,), infinity)
    return bound.to(like).expand(field.shape).reshape(-1)
