"""InstaHide: blend several examples and flip the sign of every pixel at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from invertigo.defenses.mixing import MIXTURE, mixed, numpy_generator, unmixing, within_steps
from invertigo.defenses.registry import register
from invertigo.types import (
    AdversaryView,
    Batch,
    Defense,
    Domain,
    InvalidValueError,
    Observation,
    Paper,
    Step,
    Task,
)

Transform = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

SIGNS = "signs"
TRIES = 10_000
"""Draws after which weights inside the bounds are given up."""


@register
@dataclass(frozen=True, kw_only=True)
class InstaHide(Defense):
    r"""Train on $\tilde x_i = c + s_i \odot (\sum_j \lambda_{ij} x_j - c)$ with the label $\sum_j \lambda_{ij} y_j$.

    Every example is mixed with `mix` - 1 others of its step, $\lambda \sim \mathrm{Dirichlet}(3, 1, \dots, 1)$ with the
    example itself first, drawn until all lie in [`least`, `most`]. $s_i$ are random signs, one for each value of each
    pixel, and $c$ is the middle of the range, so that what comes out is a picture of the same range.

    A step of fewer than `mix` examples mixes all it has; a single one is only flipped. Labels become probabilities,
    which the loss must accept (`cross_entropy` does).

    Args:
        mix: $k$, at least 1.
        most: largest weight; 0.65 in the papers, 1 in the command line of GradAttack.
        least: smallest weight.

    This is Intra-InstaHide: partners come from the client's own step. Carlini et al. (2021) undo InstaHide from many
    encodings of the same images; our informed attacker has one, and optimises weights and signs with the images.

    Source: Huang et al. (2020), and the constants of Huang et al. (2021), GradAttack.
    """

    name: ClassVar[str] = "instahide"
    paper: ClassVar[Paper] = Paper(
        "huang2020instahide",
        "InstaHide: Instance-hiding Schemes for Private Distributed Learning",
        "Huang, Yangsibo and Song, Zhao and Li, Kai and Arora, Sanjeev",
        2020,
        "International Conference on Machine Learning",
        "2010.02772",
    )
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "mix"
    strengths: ClassVar[tuple[float, ...]] = (1, 2, 4, 6)

    mix: int = 4
    most: float = 0.65
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.mix < 1 or self.mix != int(self.mix):
            raise InvalidValueError(
                f"instahide.mix is {self.mix}; every example is hidden among a whole number of them, at least itself. "
                "The paper mixes 4."
            )
        if not (0 <= self.least < self.most <= 1) or self.least * self.mix >= 1 or self.most * self.mix <= 1 < self.mix:
            raise InvalidValueError(
                f"instahide.least is {self.least} and instahide.most is {self.most}: no {self.mix} weights that add up "
                "to 1 lie between them. The paper takes least=0 and most=0.65 for mix=4."
            )

    def on_batch(self, batch: Batch, step: Step) -> Batch:
        """The encoded batch, with labels as probabilities."""
        return Batch(self._encoded(batch.fields, step.task, step.generator))

    def _encoded(self, fields: Mapping[str, Tensor], task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        draw, inputs = numpy_generator(generator), task.domain.inputs
        named = mixed(self.name, fields, self.weights(len(fields[inputs]), draw), task)
        images = named[inputs]
        flips = torch.from_numpy(draw.integers(0, 2, size=tuple(images.shape))).to(images) * 2 - 1
        centre = _centre(task.domain, images)
        return {**named, inputs: centre + flips * (images - centre)}

    def weights(self, count: int, draw: np.random.Generator) -> Tensor:
        """(count, count) weights; row i says how much of each example encoding i holds."""
        taken = min(int(self.mix), count)
        order = draw.permutation(count)
        rows = torch.zeros(count, count, dtype=torch.float64)
        for place, i in enumerate(order.tolist()):
            members = np.roll(order, -place)[:taken]  # itself and those after it in a random circle
            rows[i, torch.from_numpy(members)] = torch.from_numpy(self._shares(taken, draw))
        return rows

    def _shares(self, taken: int, draw: np.random.Generator) -> np.ndarray:
        if taken == 1:
            return np.ones(1)
        most = max(self.most, (1 + 1 / taken) / 2)  # a step of few examples may not be able to keep to the bound
        for _ in range(TRIES):
            shares = draw.dirichlet([3.0] + [1.0] * (taken - 1))
            if shares.max() <= most and shares.min() >= self.least:
                return shares
        raise InvalidValueError(
            f"instahide found no {taken} weights between least={self.least} and most={self.most} in {TRIES} draws; "
            "leave more room between them."
        )

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Look for weights and signs together with the images."""
        task, local, count = observation.task, observation.local, observation.num_examples
        shape = task.domain.example_shapes()[task.domain.inputs]
        return AdversaryView(
            knows="The adversary knows that examples of a step are mixed and flipped about the middle of their range, "
            "and optimises weights and signs together with the images.",
            unknowns={MIXTURE: (count, count), SIGNS: (count, *shape)} if count else None,
            transform=_flipping(unmixing(task, local, own=1.5), task.domain),
            draw=within_steps(lambda fields, generator: self._encoded(fields, task, generator), local),
        )


def _centre(domain: Domain, images: Tensor) -> Tensor:
    low, high = (bound.to(images) for bound in domain.bounds(domain.inputs))
    return (low + high) / 2


def _flipping(unmix: Transform, domain: Domain) -> Transform:
    def transform(fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = dict(fields)
        signs = named.pop(SIGNS, None)
        named = unmix(named)
        if signs is not None:
            images = named[domain.inputs]
            centre = _centre(domain, images)
            # From all upright on: an image and its negative fit alike, and neighbours should agree on which it is.
            named[domain.inputs] = centre + (2 + 0.2 * signs).tanh() * (images - centre)
        return named

    return transform
