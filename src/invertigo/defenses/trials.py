"""The best of several random releases, judged by the loss that a step along each would leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from invertigo.types import Step, trainable

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Best:
    """The trial of least loss; `improves` says that a step along it lowers the loss."""

    release: dict[str, Tensor]
    loss: float
    improves: bool


def best_of(trials: int, draw: Callable[[], dict[str, Tensor]], step: Step, rate: float) -> Best:
    r"""Draw `trials` releases $G_t$ and keep the one with the least $L(\theta - \eta G_t)$; $\eta$ is `rate`.

    Losses are taken in float64: with a small rate, the differences between trials drown in float32's rounding.
    """
    parameters = trainable(step.model)
    before = step.loss(parameters).item()
    best, least = draw(), math.inf
    for number in range(trials):
        release = best if number == 0 else draw()
        moved = {name: p.double() - rate * release[name].double() for name, p in parameters.items()}
        loss = step.loss(moved).item()
        if loss < least:
            best, least = release, loss
    return Best(best, least, least < before)
