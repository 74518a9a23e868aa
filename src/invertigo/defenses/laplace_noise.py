"""Laplacian noise on the update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.matching.recipes import DLG
from invertigo.defenses.entries import Tensors, root_mean_square
from invertigo.defenses.gaussian_noise import check_scale, noisy_view, remaining_std
from invertigo.defenses.registry import register
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, Observation, Paper, Step


@register
@dataclass(frozen=True, kw_only=True)
class LaplaceNoise(Defense):
    r"""$u + \epsilon$ with $p(\epsilon) = e^{-|\epsilon| / b} / 2b$ on every entry of what is sent.

    The noise's standard deviation is $\sqrt 2\, b$. Released code of several defenses calls b "epsilon"; it is no
    privacy budget.

    Args:
        scale: b >= 0, in the update's own unit; with `relative`, in units of the update's root mean square entry.
        relative: scale the noise with each update.

    Source: Zhu et al. (2019).
    """

    name: ClassVar[str] = "laplace_noise"
    paper: ClassVar[Paper] = DLG.paper
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "scale"
    strengths: ClassVar[tuple[float, ...]] = (1e-4, 1e-3, 1e-2, 1e-1)

    scale: float = 1e-2
    relative: bool = False

    def __post_init__(self) -> None:
        check_scale(self.scale, "scale")

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The update with independent noise on every entry."""
        scale = self.scale * (root_mean_square(update) if self.relative else 1.0)
        step.facts["noise_std"] = math.sqrt(2) * scale
        return {name: t + scale * _laplace(t, step.generator) for name, t in update.items()}

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The mean over releases, and the noise that is left in it."""
        return noisy_view(observation, remaining_std(observation, math.sqrt(2) * self.scale, self.relative))


def _laplace(like: Tensor, generator: torch.Generator) -> Tensor:
    """The difference of two exponential draws has the Laplacian density."""
    one, other = (
        torch.empty(like.shape, device=generator.device, dtype=like.dtype).exponential_(generator=generator)
        for _ in range(2)
    )
    return (one - other).to(like.device)
