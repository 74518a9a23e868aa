"""MixUp: train on blends of two examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.defenses.mixing import MIXTURE, mixed, numpy_generator, partners, unmixing, within_steps
from invertigo.defenses.registry import register
from invertigo.types import AdversaryView, Batch, Defense, InvalidValueError, Observation, Paper, Step, Task


@register
@dataclass(frozen=True, kw_only=True)
class MixUp(Defense):
    r"""Train on $\lambda x_i + (1 - \lambda) x_{\pi(i)}$ with the label $\lambda y_i + (1-\lambda) y_{\pi(i)}$.

    $\lambda \sim \mathrm{Beta}(\alpha, \alpha)$ is drawn once a step, $\pi$ pairs every example of the step with
    another one. Labels become probabilities, which the loss must accept (`cross_entropy` does). It was made for
    generalisation; blends show both examples to whoever looks.

    Args:
        alpha: $\alpha > 0$; small values mostly leave one of the two, large ones blend evenly.

    The published code draws any permutation, which may leave an example alone with itself; ours never does. A step of
    one example has nobody to be mixed with and is refused.

    Source: Zhang et al. (2018), Algorithm 1. The informed attacker optimises the weights with the images; labels
    that differ tell it the weights.
    """

    name: ClassVar[str] = "mixup"
    paper: ClassVar[Paper] = Paper(
        "zhang2018mixup",
        "mixup: Beyond Empirical Risk Minimization",
        "Zhang, Hongyi and Cisse, Moustapha and Dauphin, Yann N. and Lopez-Paz, David",
        2018,
        "International Conference on Learning Representations",
        "1710.09412",
    )
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "alpha"
    strengths: ClassVar[tuple[float, ...]] = (0.1, 0.4, 1.0, 8.0)

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise InvalidValueError(
                f"mixup.alpha is {self.alpha}; at 0 no two examples are ever blended, and each is trained on as it is, "
                "so it must be positive. 1.0 draws every proportion alike."
            )

    def on_batch(self, batch: Batch, step: Step) -> Batch:
        """The blended batch, with labels as probabilities."""
        if len(batch) < 2:
            raise InvalidValueError(
                "mixup was given a local step of one example: there is nobody to blend it with, so it would be trained "
                "on as it is. Use at least two examples a step (LocalTraining.batch_size), or a defense that protects "
                "one example, such as 'instahide' with its random signs."
            )
        return Batch(self._blended(batch.fields, step.task, step.generator))

    def _blended(self, fields: Mapping[str, Tensor], task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        draw, count = numpy_generator(generator), len(next(iter(fields.values())))
        weight, partner = float(draw.beta(self.alpha, self.alpha)), torch.from_numpy(partners(count, draw))
        own = torch.eye(count, dtype=torch.float64)
        return mixed(self.name, fields, weight * own + (1 - weight) * own[partner], task)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Look for the weights together with the images."""
        task, local, count = observation.task, observation.local, observation.num_examples
        return AdversaryView(
            knows="The adversary knows that examples of a step are blended with their labels, and optimises the "
            "weights together with the images.",
            unknowns={MIXTURE: (count, count)} if count else None,
            transform=unmixing(task, local, own=2.0),
            draw=within_steps(lambda fields, generator: self._blended(fields, task, generator), local),
        )
