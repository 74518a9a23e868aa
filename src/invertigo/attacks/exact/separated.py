"""From separated shares to examples with labels, as often as they are in the batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from invertigo.attacks.exact.alone import Alone
from invertigo.attacks.exact.first_layer import FirstLinear
from invertigo.attacks.exact.neurons import Neurons
from invertigo.attacks.exact.peeling import Layer
from invertigo.attacks.exact.separation import Search, Separation
from invertigo.attacks.labels import infer_labels
from invertigo.types import InvertigoError, LocalTraining, Observation, RequirementError

LIKE = 0.999
"""Cosine from which a share is taken for what the example does with a label."""
WHOLE = 0.02
"""How far the size of a share may be from a whole number of examples."""


@dataclass(frozen=True)
class Examples:
    """Layer inputs (row, feature), the numbers of their targets (row,) where these follow, and what was proven."""

    inputs: Tensor
    numbers: Tensor | None
    rest: float
    rank: int
    found: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Situation:
    """What is known of the update beside the layer's gradients."""

    observation: Observation
    first: FirstLinear
    layer: Layer
    size: int | None
    plausible: Callable[[Tensor], Tensor]
    targets: Tensor | None
    alone: Alone | None
    """Simulates single examples; None where they cannot be (dropout, several local steps, a loss without classes)."""


def separate(given: Situation, deadline: float, asked: Callable[[], bool] = lambda: False) -> Examples | None:
    """The examples whose part of the update can be told from all others. None where that is not possible at all."""
    local = given.observation.local
    neurons = Neurons(given.observation, given.first, "eval", given.targets)
    search = Search(
        given.layer, neurons, given.size, given.plausible, _reach(local, given.size), deadline,
        counts=_counts(given), alone=given.alone, asked=asked,
    )  # fmt: skip
    try:
        separation = search.run()
    except (InvertigoError, RuntimeError, ValueError, TypeError, IndexError):
        return None  # the model or its loss cannot be run on made-up examples
    return None if separation is None or not len(separation.inputs) else _examples(given, separation)


def _reach(local: LocalTraining, size: int | None) -> float:
    """How far a first layer's outputs may have moved, in units of what its gradients say of them."""
    several = local.sends == "difference" and (size is None or len(local.steps(size)) > 1)
    return 2 * local.learning_rate if several else 0.0


def _counts(given: Situation) -> Tensor | None:
    known = given.observation.knowledge.labels
    if given.targets is None:
        return None
    if known is not None:
        return torch.stack([(known == t).reshape(len(known), -1).all(1).sum() for t in given.targets])
    try:
        counts = infer_labels(given.observation).counts
    except (RequirementError, RuntimeError):
        return None
    return counts if len(counts) == len(given.targets) else None


def _examples(given: Situation, found: Separation) -> Examples:
    numbers, times = _told(given, found)
    notes = [
        f"{len(found.inputs)} of {found.rank} linearly independent examples were separated, without assuming the "
        f"loss, the labels or a scale; {found.rest:.1e} of the gradient is left over."
    ]
    whole = times is not None and bool(((times - times.round()).abs() < WHOLE * times).all() and (times > 0.5).all())
    if times is not None and not whole:
        notes.append("Gradients were scaled, as by clipping: each image was proven up to a factor.")
    repeats = torch.ones(len(found.inputs), dtype=torch.long, device=found.inputs.device)
    if whole and times is not None and given.size is not None and int(times.round().sum()) <= given.size:
        repeats = times.round().long()
    inputs = found.inputs.repeat_interleave(repeats, 0)
    return Examples(
        inputs, None if numbers is None else numbers.repeat_interleave(repeats), found.rest, found.rank, found.found,
        tuple(notes),
    )  # fmt: skip


def _told(given: Situation, found: Separation) -> tuple[Tensor | None, Tensor | None]:
    """(row,) which target makes each share, and (row,) how many such examples it is; None where one fits none."""
    if given.alone is None or given.targets is None or given.size is None:
        return None, None
    numbers = torch.arange(len(given.targets), device=found.inputs.device)
    best, times = [], []
    for inputs, share in zip(found.inputs, found.shares):
        made = given.alone(inputs.expand(len(numbers), -1), numbers) / given.size
        likeness = cosine_similarity(made, share[None])
        which = likeness.argmax()
        if float(likeness[which]) < LIKE:
            return None, None
        best.append(which)
        times.append((made[which] @ share) / made[which].square().sum())
    return torch.stack(best), torch.stack(times)


def seconds_from_now(seconds: float) -> float:
    """A deadline on the monotonic clock."""
    return time.monotonic() + seconds
