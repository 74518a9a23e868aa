"""How much an honest round leaks, and what is beyond that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from invertigo.types import History

REFERENCE = "reference:"
"""Prefix of figures of honest reference models; these count whatever became of the round."""
SPREAD = 2.0
"""Deviations, on the scale of square roots, above the largest honest count that are still no reason to refuse."""


@dataclass(frozen=True)
class Allowance:
    """What honest rounds and reference models leak: `usual` may leave untouched, beyond `most` is refused."""

    usual: int
    most: float
    rounds: int


def allowance(figure: str, history: History, measured: Sequence[float] = ()) -> Allowance:
    r"""From the client's clean rounds, its reference models, and those `measured` just now.

    `usual` is the median, rounded up. `most` is $(\sqrt{\max + 1} + 2)^2$: a count of rare and nearly independent
    events has a standard deviation of at most a half on the scale of square roots, and 2 is four of them above the
    largest that was ever seen. Clean rounds count up to what the reference models allow, so that a server cannot raise
    the allowance round by round.
    """
    models = [*measured, *_references(figure, history)]
    own = [value for _, value in history.clean(figure)]
    if models:
        limit = _most(max(models))
        own = [min(value, limit) for value in own]
        ceiling = max(models)
        usual = _median([*models, *own])
        return Allowance(math.ceil(min(usual, max(ceiling, _median(models)))), limit, len(models) + len(own))
    # Without any reference model: the first rounds of this client, which a server could have prepared.
    return Allowance(0, _most(0.0), 0)


def _references(figure: str, history: History) -> list[float]:
    name = REFERENCE + figure
    held = [v.figures[key] for v in history.visits for key in v.figures if key.split("#")[0] == name]
    return held


def _most(largest: float) -> float:
    return (math.sqrt(largest + 1) + SPREAD) ** 2


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
