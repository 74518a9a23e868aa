"""The attack: train an inverter on simulated clients with public images, then read the received update once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.amortised.clients import seen_entries, simulated_updates
from invertigo.attacks.amortised.sketch import Sketch
from invertigo.attacks.amortised.training import Draw, trained_inverter
from invertigo.attacks.labels import infer_labels
from invertigo.attacks.matching.pace import Pace
from invertigo.attacks.registry import register
from invertigo.domains import Images
from invertigo.federation.functional import simulating
from invertigo.models import memory
from invertigo.types import (
    Batch,
    InvalidValueError,
    Observation,
    Paper,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    check_requirements,
)

EVIDENCE = 64
"""Simulated clients that tell one model, recipe, defense and adversary from another."""
HELD_OUT = 0.2
"""Share of the public images that the inverter is judged by instead of being fitted to them."""


@register
@dataclass(frozen=True, kw_only=True)
class AmortisedInverter:
    r"""Learn $\min_\psi E\,\lVert x - A_\psi(S g(x)) \rVert^2$ over public images, then return $A_\psi(S g)$.

    $S$ is a fixed random projection of the update to `sketch` numbers; $A$ is a ridge regression and a network for what
    that leaves over. It is trained from scratch for the very model that was sent, on clients simulated with public
    images of the private batch's labels (given, or inferred from the update): undefended ones by a naive adversary,
    ones that use the defense, its randomness drawn afresh, by an informed one. The objective is the mean squared error,
    in pixels, on public images held out from the training, by which the best inverter is chosen. A process that attacks
    the same model again, with the same labels and seed, reuses what it trained, to the same bits.

    Source: after Wu et al. 2023; projection, regression, network and schedule are ours.
    """

    name: ClassVar[str] = "amortised_inverter"
    paper: ClassVar[Paper] = Paper(
        "wu2023learning",
        "Learning to Invert: Simple Adaptive Attacks for Gradient Inversion in Federated Learning",
        "Wu, Ruihan and Chen, Xiangyu and Guo, Chuan and Weinberger, Kilian Q.",
        2023,
        "Conference on Uncertainty in Artificial Intelligence",
        "2210.10880",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE, Requirement.PUBLIC_DATA})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    iterations: int = 500
    clients: int = 32
    sketch: int = 1024
    hidden: int = 512
    learning_rate: float = 1e-3
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "clients", "sketch", "hidden"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} is {getattr(self, name)}; it must be a positive whole number.")

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        check_requirements(self, observation)
        domain, public, count = observation.task.domain, observation.knowledge.public, observation.num_examples
        if public is None or count is None or not isinstance(domain, Images):
            raise RequirementError(f"Attack '{self.name}' needs public images and the size of the batch.")
        labels, inferred = _labels(observation)
        sketch = Sketch.draw(observation.parameters, self.sketch, generator)
        pace = Pace(self.iterations, progress, self.seconds)
        with simulating(observation.task.model, observation.local.mode), torch.enable_grad():
            draw = _draws(observation, domain, public, labels, sketch, generator)
            first = draw(EVIDENCE, False)
            # Model, recipe, defense and adversary cannot differ without changing what the first clients send.
            key = memory.key(repr(replace(self, seconds=None)), [*first, generator.get_state()], public.fields)
            inverter, error, stopped = memory.recall(key) or trained_inverter(
                domain.shape, draw, pace, hidden=self.hidden, clients=self.clients,
                learning_rate=self.learning_rate, generator=generator,
            )  # fmt: skip
            if stopped == "schedule" and pace.total == self.iterations:
                memory.keep(key, (inverter, error, stopped))
        received = seen_entries(observation.knowledge.view, observation.update.tensors)
        with torch.no_grad():
            pixels = inverter(sketch({name: tensor[None] for name, tensor in received.items()}))[0]
        return Reconstruction(
            fields={domain.inputs: domain.from_unit(pixels).detach(), domain.target: labels},
            attack=self.name,
            objective=error,
            stopped=stopped,
            seconds=pace.elapsed,
            trace=tuple(pace.trace),
            labels_inferred=inferred,
        )


def _draws(
    observation: Observation, domain: Images, public: Batch, labels: Tensor, sketch: Sketch, generator: torch.Generator
) -> Draw:
    """Clients whose batches have the labels of the private one, as far as there are public images of these classes."""
    like = next(iter(observation.parameters.values()))
    images, known = public[domain.inputs].to(like), public[domain.target].to(like.device)
    pools = [(known == label).nonzero()[:, 0] for label in labels.to(like.device)]
    pools = [pool if len(pool) else torch.arange(len(images), device=like.device) for pool in pools]

    def draw(clients: int, held_out: bool) -> tuple[Tensor, Tensor]:
        parts = [_part(pool, held_out) for pool in pools]
        drawn = torch.rand((clients, len(parts)), generator=generator, device=generator.device).to(like.device)
        chosen = torch.stack([part[(u * len(part)).long()] for part, u in zip(parts, drawn.T)], dim=1)
        fields = {domain.inputs: images[chosen], domain.target: known[chosen]}
        updates = simulated_updates(observation, fields, generator=generator)
        with torch.no_grad():
            return sketch(updates), domain.to_unit(images[chosen])

    return draw


def _part(pool: Tensor, held_out: bool) -> Tensor:
    """The last fifth of the images of one class, or the others; a single image is both."""
    kept = max(1, len(pool) - max(1, round(HELD_OUT * len(pool))))
    return (pool[kept:] if len(pool) > 1 else pool) if held_out else pool[:kept]


def _labels(observation: Observation) -> tuple[Tensor, bool]:
    known = observation.knowledge.labels
    return (known, False) if known is not None else (infer_labels(observation).labels, True)
