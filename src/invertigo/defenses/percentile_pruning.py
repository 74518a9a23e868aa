"""The smallest entries of every layer are removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invertigo.attacks.matching.recipes import DLG
from invertigo.defenses.entries import Tensors, count, largest
from invertigo.defenses.registry import register
from invertigo.defenses.sparse import kept_entries_view, sparse_bytes
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step


@register
@dataclass(frozen=True, kw_only=True)
class PercentilePruning(Defense):
    r"""In each layer, the $\lfloor q n / 100 \rfloor$ of its $n$ entries that are smallest in magnitude become zero.

    Unlike `top_k`, every layer keeps its share, so that no layer falls silent. Ties keep the entry that comes first.

    Args:
        percentile: q in [0, 100).

    Source: Zhu et al. (2019), who prune gradients by magnitude and find that 20 percent stop their attack; audits since
    use 80 to 99. Released versions compare with a computed percentile instead of counting, and so keep all or none of
    equal entries.
    """

    name: ClassVar[str] = "percentile_pruning"
    paper: ClassVar[Paper] = DLG.paper
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "percentile"
    strengths: ClassVar[tuple[float, ...]] = (20.0, 50.0, 80.0, 90.0, 99.0)

    percentile: float = 80.0

    def __post_init__(self) -> None:
        if not 0 <= self.percentile < 100:
            raise InvalidValueError(
                f"percentile is {self.percentile}; it is the percentage of each layer's entries that are withheld and "
                "lies in [0, 100). At 100 the client would send nothing that can be learned from."
            )

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The update with each layer's smallest entries set to zero."""
        kept = {name: t.numel() - int(self.percentile * t.numel() / 100) for name, t in update.items()}
        step.facts["kept"] = sum(kept.values()) / count(update)
        return {name: t * largest(t, kept[name]) for name, t in update.items()}

    def wire_bytes(self, update: Tensors) -> int:
        """Values and their places."""
        return sparse_bytes(update)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The zeros are known to be removed entries, smaller than those that are left."""
        return kept_entries_view(observation, per_layer=True)
