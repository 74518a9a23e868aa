"""Only the largest entries of the update are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.defenses.entries import Tensors, count, largest
from invertigo.defenses.registry import register
from invertigo.defenses.sparse import kept_entries_view, sparse_bytes
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step


@register
@dataclass(frozen=True, kw_only=True)
class TopK(Defense):
    r"""$u \odot [\,|u| \text{ among its } \lceil k d \rfloor \text{ largest}\,]$ over all $d$ entries together.

    Ties go to the entry that comes first. The trace reports the share that was really `kept`; what is removed here is
    lost (no error feedback), so that each round's release can be judged by itself.

    Args:
        k: share of entries kept, in (0, 1].

    Source: Aji and Heafield (2017).
    """

    name: ClassVar[str] = "top_k"
    paper: ClassVar[Paper] = Paper(
        "aji2017sparse",
        "Sparse Communication for Distributed Gradient Descent",
        "Aji, Alham Fikri and Heafield, Kenneth",
        2017,
        "Conference on Empirical Methods in Natural Language Processing",
        "1704.05021",
    )
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "k"
    strengths: ClassVar[tuple[float, ...]] = (0.5, 0.2, 0.1, 0.05, 0.01)

    k: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.k <= 1:
            raise InvalidValueError(
                f"k is {self.k}; it is the share of entries that leave the client and lies in (0, 1]. "
                f"{_as_count(self.k)}Less of it hides more: 0.1 sends every tenth entry."
            )

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The update with all but its largest entries set to zero."""
        entries = count(update)
        keep = max(round(self.k * entries), 1)
        mask = largest(torch.cat([t.flatten() for t in update.values()]), keep)
        step.facts["kept"] = keep / entries
        parts = mask.split([t.numel() for t in update.values()])
        return {name: t * part.view(t.shape) for (name, t), part in zip(update.items(), parts)}

    def wire_bytes(self, update: Tensors) -> int:
        """Values and their places."""
        return sparse_bytes(update)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The zeros are known to be removed entries, smaller than those that are left."""
        return kept_entries_view(observation, per_layer=False)


def _as_count(k: float) -> str:
    return f"If {k:g} is a number of entries, divide it by the number of parameters. " if k > 1 else ""
