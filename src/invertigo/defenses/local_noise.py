"""Noise that was added in every local step, as it arrives in what is sent."""

from __future__ import annotations

import math
from collections.abc import Callable

from invertigo.types import Observation


def accumulated(observation: Observation, per_step: Callable[[int], float]) -> float:
    r"""Standard deviation in the update of noise of `per_step(batch size)` on each step's gradient.

    For $\theta_T - \theta_0$, step $t$ of $T$ enters with $\eta\,(1-m^{T-t})/(1-m)$ (momentum $m$, rate $\eta$).
    """
    size = observation.num_examples or 1
    local = observation.local
    if local.sends == "gradient":
        return per_step(size)
    steps = local.steps(size)
    weights = [(1 - local.momentum ** (len(steps) - t)) / (1 - local.momentum) for t in range(len(steps))]
    variance = sum((w * per_step(part.stop - part.start)) ** 2 for w, part in zip(weights, steps))
    return local.learning_rate * math.sqrt(variance)
