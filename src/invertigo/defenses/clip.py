"""Clipping of the whole update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invertigo.defenses.clipping import check_norm, clipped
from invertigo.defenses.entries import Tensors, length
from invertigo.defenses.registry import register
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, Observation, Paper, Step

GGL = Paper(
    "li2022auditing",
    "Auditing Privacy Defenses in Federated Learning via Generative Gradient Leakage",
    "Li, Zhuohang and Zhang, Jiaxin and Liu, Luyang and Liu, Jian",
    2022,
    "IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    "2203.15696",
)


@register
@dataclass(frozen=True, kw_only=True)
class Clip(Defense):
    r"""$u \min(1, C / \lVert u \rVert_2)$, the length taken over all layers together.

    Only the length changes: an attacker who matches directions sees the same update as without it.

    Args:
        norm: C > 0. Far below the usual length it hides how large updates are, and nothing else.

    Source: Li et al. (2022), whose audits clip to 4.
    """

    name: ClassVar[str] = "clip"
    paper: ClassVar[Paper] = GGL
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "norm"
    strengths: ClassVar[tuple[float, ...]] = (8.0, 4.0, 1.0, 0.1)

    norm: float = 4.0

    def __post_init__(self) -> None:
        check_norm(self.norm, "norm")

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The update, scaled down where it is longer than the bound."""
        step.facts["clipped"] = float(length(update) > self.norm)
        return {name: t[0] for name, t in clipped({k: t[None] for k, t in update.items()}, self.norm).items()}

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The same clip on the simulated update; attacks that match directions do not need it."""
        return AdversaryView(
            knows=f"Updates are scaled down to a length of {self.norm:g}: simulated ones are, too.",
            surrogate=lambda update: clipped(update, self.norm),
        )
