"""How well a reader singles out and draws, on batches that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from invertigo.attacks.active.seer_bait import Bait
from invertigo.attacks.active.seer_reader import Reader
from invertigo.attacks.active.seer_training import weighted_gradients
from invertigo.federation.functional import simulating
from invertigo.types import Task

ROUNDS = 32


@dataclass(frozen=True)
class Trial:
    """Share of rounds in which the right image is the nearest of all, by chance `chance`; mean dB of what is drawn, and
    of the mean image of those singled out; the task's loss and accuracy, as the client sees them."""

    singled_out: float
    chance: float
    psnr: float
    baseline: float
    loss: float
    accuracy: float

    def sentence(self) -> str:
        """For a report."""
        return (
            f"On held-out public batches with one to find, the right image is singled out in {self.singled_out:.0%} "
            f"(chance {self.chance:.0%}) at {self.psnr:.1f} dB, against {self.baseline:.1f} dB of a constant guess; a "
            f"client sees a loss of {self.loss:.2f} and an accuracy of {self.accuracy:.0%}."
        )


@torch.no_grad()
def trial(
    task: Task,
    parameters: Mapping[str, Tensor],
    reader: Reader,
    bait: Bait,
    mode: str,
    generator: torch.Generator,
    rounds: int = ROUNDS,
) -> Trial:
    """The reader on `rounds` crowds drawn from `bait`, who train these `parameters`."""
    drawn = bait.draw(rounds, generator)
    everything = torch.ones_like(drawn.labels, dtype=drawn.images.dtype)[:, None]
    with simulating(task.model, mode):
        gradients = weighted_gradients(task)(parameters, drawn.images, drawn.labels, everything)
        predicted = [functional_call(task.model, dict(parameters), (images,)) for images in drawn.images]
    losses = [float(task.loss(one, labels)) for one, labels in zip(predicted, drawn.labels)]
    right_class = torch.stack([one.argmax(1) == labels for one, labels in zip(predicted, drawn.labels)])
    summed = reader.select(gradients).unflatten(0, (rounds, bait.clients)).sum(1)
    pictured = reader(summed).clamp(0, 1)
    crowd = bait.domain.to_unit(drawn.images.flatten(0, 1)).unflatten(0, (rounds, -1))
    wanted = bait.pixels(drawn.examples[:: bait.clients])
    errors = (crowd - pictured[:, None]).flatten(2).square().mean(2)
    right = errors.argmin(1) == drawn.wanted[:: bait.clients]
    own = (wanted - pictured).flatten(1).square().mean(1)
    constant = (wanted - wanted.mean(0)).flatten(1).square().mean(1)
    return Trial(
        right.double().mean().item(), 1 / crowd.shape[1], _decibel(own), _decibel(constant),
        sum(losses) / len(losses), right_class.double().mean().item(),
    )  # fmt: skip


def _decibel(errors: Tensor) -> float:
    return float(-10 * errors.clamp_min(1e-12).log10().mean())
