"""The other control: images as an autoencoder keeps them, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from invertigo.defenses.perturbation.release import autoencoded, informed_view, released
from invertigo.defenses.registry import register
from invertigo.types import INVERTIGO, AdversaryView, Batch, Defense, Observation, Paper, Step, Task


@register
@dataclass(frozen=True, kw_only=True)
class AutoencoderOnly(Defense):
    r"""Train on $\tilde x = D(E(x))$: what `learnable_perturbation` would protect without any perturbation.

    An autoencoder alone drops fine detail; a narrower bottleneck (fewer `latent` coordinates) drops more.

    Source: ours, as a control.
    """

    name: ClassVar[str] = "autoencoder_only"
    paper: ClassVar[Paper] = INVERTIGO
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "latent"
    strengths: ClassVar[tuple[float, ...]] = (64, 32, 16, 8)

    latent: int = 64
    width: int = 16
    autoencoder_epochs: int = 20
    weights: str | None = None

    def prepare(self, task: Task, public: Batch | None, *, generator: torch.Generator) -> Task:
        """See `types.Defense`; the autoencoder is trained on public images."""
        return autoencoded(
            task, public, name=self.name, weights=self.weights, latent=self.latent, width=self.width,
            epochs=self.autoencoder_epochs, generator=generator,
        )  # fmt: skip

    def on_batch(self, batch: Batch, step: Step) -> Batch:
        """See `types.Defense`."""
        return released(step.task, batch, 0.0, name=self.name, generator=step.generator)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Search for the image whose autoencoding explains the update."""
        return informed_view(
            observation, 0.0, name=self.name, knows="the autoencoder, which the search passes its image through"
        )  # fmt: skip
