"""The defense: images are moved in latent space by a head that was trained against an attacker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch

from invertigo.defenses.perturbation.minimax import Game, Watch, play
from invertigo.defenses.perturbation.release import fitted, informed_view, loaded, released
from invertigo.defenses.registry import register
from invertigo.models import memory
from invertigo.models.descent import Watch as WatchFit
from invertigo.types import AdversaryView, Batch, Defense, InvalidValueError, Observation, Paper, Step, Task

LEARNABLE = Paper(
    "jiang2025defending",
    "Defending Against Gradient Inversion Attacks for Biomedical Images via Learnable Data Perturbation",
    "Jiang, Shiyi and Firouzi, Farshad and Chakrabarty, Krishnendu",
    2025,
    "arXiv preprint",
    "2503.16542",
)


@register
@dataclass(frozen=True, kw_only=True)
class LearnablePerturbation(Defense):
    r"""Train on $\tilde x = D(E(x) + \delta)$, $\delta = e\sqrt d\,P(z, \varepsilon)/\lVert P(z, \varepsilon)\rVert$.

    Only the gradient of $\tilde x$ leaves the client. $E$, $D$ are an autoencoder, $P$ a head that was trained in a
    minimax game against a simulated attacker (`minimax.play`); all are made on public data by `prepare`, or read from
    the safetensors file `weights` (then `energy` may differ from that of the training), and are known to everybody.
    Only $\varepsilon \sim N(0, I)$, drawn anew in each step, is secret.

    Source: after Jiang, Firouzi and Chakrabarty 2025. From the paper's abstract we have: perturbation of data in latent
    space, and minimax optimisation. Architectures, losses, the fixed energy, the attacker of the game and the schedule
    are our reading, so this is no reproduction.
    """

    name: ClassVar[str] = "learnable_perturbation"
    paper: ClassVar[Paper] = LEARNABLE
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "energy"
    strengths: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0, 4.0)

    energy: float = 1.0
    privacy: float = 1.0
    confusion: float = 0.1
    latent: int = 64
    width: int = 16
    autoencoder_epochs: int = 20
    epochs: int = 10
    attacker_steps: int = 2
    weights: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        for name in ("energy", "privacy", "confusion"):
            if not getattr(self, name) >= 0:
                raise InvalidValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if self.energy == 0:
            raise InvalidValueError(
                "energy is 0, so images are not perturbed at all; that is the defense 'autoencoder_only', its control."
            )
        for name in ("latent", "width", "epochs", "attacker_steps"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} is {getattr(self, name)}; it must be a positive whole number.")

    def prepare(self, task: Task, public: Batch | None, *, generator: torch.Generator) -> Task:
        """See `types.Defense`. Takes minutes without `weights`; to watch it, call `train`."""
        return self.train(task, public, generator=generator)

    def train(
        self,
        task: Task,
        public: Batch | None,
        *,
        generator: torch.Generator,
        watch: Watch | None = None,
        watch_autoencoder: WatchFit | None = None,
    ) -> Task:
        """`prepare`, with progress."""
        if self.weights is not None:
            return loaded(task, self.weights, head=True)
        autoencoder = fitted(
            task, public, name=self.name, latent=self.latent, width=self.width,
            epochs=self.autoencoder_epochs, generator=generator, watch=watch_autoencoder,
        )  # fmt: skip
        assert public is not None
        checkpoint = None if self.checkpoint is None else Path(self.checkpoint)
        make = partial(
            play, task, public, autoencoder, self._game(), generator=generator, watch=watch, checkpoint=checkpoint
        )
        evidence = [*task.model.state_dict().values(), *autoencoder.state_dict().values()]
        perturbation = memory.once(make, f"{self._game()} {task.domain}", evidence, public.fields, generator)
        return replace(task, prepared=perturbation.tensors())

    def on_batch(self, batch: Batch, step: Step) -> Batch:
        """See `types.Defense`."""
        return released(step.task, batch, self.energy, name=self.name, generator=step.generator)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Search for the image whose perturbed version explains the update, or learn from clients that perturb."""
        return informed_view(
            observation, self.energy, name=self.name,
            knows="the autoencoder and the perturbation head, but not the random numbers that were drawn: the search "
            "passes its image through both at the mean of the noise, and attacks that learn draw noise of their own",
        )  # fmt: skip

    def _game(self) -> Game:
        return Game(
            energy=self.energy,
            privacy=self.privacy,
            confusion=self.confusion,
            epochs=self.epochs,
            attacker_steps=self.attacker_steps,
        )
