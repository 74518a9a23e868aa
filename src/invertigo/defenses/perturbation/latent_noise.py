"""The control of equal energy: plain noise in latent space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from invertigo.defenses.perturbation.release import autoencoded, informed_view, released
from invertigo.defenses.registry import register
from invertigo.types import INVERTIGO, AdversaryView, Batch, Defense, InvalidValueError, Observation, Paper, Step, Task


@register
@dataclass(frozen=True, kw_only=True)
class LatentNoise(Defense):
    r"""Train on $\tilde x = D(E(x) + e\,\varepsilon)$, $\varepsilon \sim N(0, I)$: `learnable_perturbation` unlearned.

    Each latent coordinate moves by the same mean square $e^2$ as with a trained head, so what a head adds beyond noise
    is what it does better than this at the same `energy`.

    Source: ours, as a control.
    """

    name: ClassVar[str] = "latent_noise"
    paper: ClassVar[Paper] = INVERTIGO
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "energy"
    strengths: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0, 4.0)

    energy: float = 1.0
    latent: int = 64
    width: int = 16
    autoencoder_epochs: int = 20
    weights: str | None = None

    def __post_init__(self) -> None:
        if not self.energy > 0:
            raise InvalidValueError(
                f"energy is {self.energy}; noise needs a positive one. Without noise this is 'autoencoder_only'."
            )

    def prepare(self, task: Task, public: Batch | None, *, generator: torch.Generator) -> Task:
        """See `types.Defense`; the autoencoder is trained on public images."""
        return autoencoded(
            task, public, name=self.name, weights=self.weights, latent=self.latent, width=self.width,
            epochs=self.autoencoder_epochs, generator=generator,
        )  # fmt: skip

    def on_batch(self, batch: Batch, step: Step) -> Batch:
        """See `types.Defense`."""
        return released(step.task, batch, self.energy, name=self.name, generator=step.generator)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Search for the image whose autoencoding explains the update, or learn from clients that add noise."""
        return informed_view(
            observation, self.energy, name=self.name,
            knows="the autoencoder and the size of the noise: the search passes its image through the autoencoder, and "
            "attacks that learn draw noise of their own",
        )  # fmt: skip
