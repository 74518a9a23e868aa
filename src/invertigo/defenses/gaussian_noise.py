"""Gaussian noise on the update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.matching.recipes import DLG
from invertigo.defenses.entries import Tensors, root_mean_square
from invertigo.defenses.registry import register
from invertigo.defenses.releases import mean_release, released
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step


@register
@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Defense):
    r"""$u + s\,\epsilon$ with $\epsilon \sim \mathcal N(0, I)$ on what is sent.

    Without clipping nobody's contribution is bounded, so this gives no differential privacy (see `user_dp`).

    Args:
        std: s >= 0, in the update's own unit; with `relative`, in units of the update's root mean square entry.
        relative: scale the noise with each update. An adversary can tell the scale from the noisy update.

    Source: Zhu et al. (2019), which found 1e-2 to stop the attack and to cost accuracy.
    """

    name: ClassVar[str] = "gaussian_noise"
    paper: ClassVar[Paper] = DLG.paper
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "std"
    strengths: ClassVar[tuple[float, ...]] = (1e-4, 1e-3, 1e-2, 1e-1)

    std: float = 1e-2
    relative: bool = False

    def __post_init__(self) -> None:
        check_scale(self.std, "std")

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The update with independent noise on every entry."""
        std = self.std * (root_mean_square(update) if self.relative else 1.0)
        step.facts["noise_std"] = std
        return {name: t + std * standard_normal(t, step.generator) for name, t in update.items()}

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The mean over releases, and the noise that is left in it."""
        return noisy_view(observation, remaining_std(observation, self.std, self.relative))


def check_scale(scale: float, setting: str) -> None:
    """Raises: InvalidValueError for a negative scale of noise."""
    if not scale >= 0:
        raise InvalidValueError(
            f"{setting} is {scale}; noise has no negative scale, and -x would be the same noise as x, so a sign error "
            f"would pass as protection. Give {setting} >= 0 (0 sends the raw update)."
        )


def remaining_std(observation: Observation, std: float, relative: bool) -> float:
    r"""Noise left in the mean of R releases: $\sigma/\sqrt R$.

    For relative noise $\sigma$ follows from the noisy update's own root mean square $q$, as $q^2 = r^2 (1 + s^2)$.
    """
    if relative:
        std = std * root_mean_square(observation.update.tensors) / math.sqrt(1 + std**2)
    return std / math.sqrt(len(released(observation)))


def noisy_view(observation: Observation, std: float) -> AdversaryView:
    """The view of an update that carries noise of this standard deviation on every entry."""
    number = len(released(observation))
    return AdversaryView(
        knows=f"The noise's standard deviation ({std:.3g} on the mean of {number} releases): priors are weighed so "
        "that the match is no closer than the noise lets it be.",
        update=mean_release(observation),
        noise_std=dict.fromkeys(observation.parameters, std),
    )


def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent draws of mean 0 and variance 1, in the form of `like`."""
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
