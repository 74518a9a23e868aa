"""Find the coefficients with which the recorded passes make up the recorded gradient, and prove it by replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from invertigo.federation.comparison import flat
from invertigo.federation.passes import Pass
from invertigo.federation.recipe import clipping_recipe, optimizer_recipe
from invertigo.federation.recorder import Recorder
from invertigo.federation.replay import replay
from invertigo.federation.simulated import Simulated, explains, least_squares
from invertigo.federation.watched_step import Expression, WatchedStep
from invertigo.types import Batch, LocalTraining, Observation, Task, Update, buffers_of, rounding

Tensors = Mapping[str, Tensor]
Mode = Literal["train", "eval"]

PLAIN = 1e-4
"""Relative difference to a plain coefficient (a mean, one) that is rounding of the fit."""
MIXED = 0.05
"""Largest relative gap that computing in half precision (autocast) is taken to cause."""


@dataclass(frozen=True)
class Fit:
    """A recipe that reproduces the recorded update; `idle` counts the passes whose gradient is no part of it."""

    task: Task
    local: LocalTraining
    update: Update
    idle: tuple[int, ...] = ()


def fit_gradient(
    recorder: Recorder,
    task: Task,
    expression: Expression,
    passes: Sequence[Pass],
    batches: Sequence[Batch],
    whole: Batch,
    mode: Mode,
) -> Fit:
    """One optimizer step as the gradient that it used: a weighted sum over the passes, clipped or not.

    Raises: ValueError when no sum of the passes' gradients is the one that was recorded.
    """
    step = recorder.stepped[0]
    sizes = tuple(len(batch) for batch in batches)
    base = _simulated(recorder, task, Update(step.raw, "gradient", rounding=_carried(recorder)), whole, mode)
    rows = [
        [_part(base, term, batch, read) for term in expression.terms]
        for batch, read in zip(batches, passes, strict=True)
    ]
    shares = [size / sum(sizes) for size in sizes]
    parts = [one for row in rows for one in row]
    if len(expression.terms) > 1:  # the terms' coefficients, with equal weight for each example
        parts = [_sum([row[k] for row in rows], shares) for k in range(len(expression.terms))]
    weights, l2 = _coefficients(base, parts)
    idle = _idle(parts, weights) if len(expression.terms) == 1 else ()
    if len(expression.terms) > 1:
        task, weights = _with_coefficients(task, expression, weights), shares
    update = Update(step.used, "gradient", rounding=_carried(recorder))
    problems = ""
    for local in _recipes(recorder, weights, shares, sizes, l2, mode):
        observation = _observation(recorder, task, update, local)
        found = replay(observation, whole, randomness=[p.state for p in passes], seconds=0.0)
        if found.status == "exact" or step.change.kind == "other":
            return Fit(task, local, update, idle)
        if any(p.precision for p in passes) and found.relative_gap < MIXED:
            return Fit(task, local, replace(update, rounding=found.relative_gap))
        problems = found.cause or found.status
    raise ValueError(f"the update that it gives is not the recorded one: {problems}")


def fit_difference(
    recorder: Recorder,
    task: Task,
    expression: Expression,
    passes: Sequence[Pass],
    batches: Sequence[Batch],
    whole: Batch,
    mode: Mode,
) -> Fit:
    """Optimizer steps as the parameter difference after them.

    Raises: RequirementError for an optimizer that cannot be repeated; ValueError when the loss is another.
    """
    recipe = optimizer_recipe(recorder)
    clipping, common = clipping_recipe(recorder.stepped)
    last, sizes = recorder.stepped[-1], tuple(len(batch) for batch in batches)
    there = replace(
        _observation(recorder, task, Update(last.raw, "gradient"), LocalTraining(mode=mode)), parameters=last.values
    )
    batch = batches[(recorder.steps - 1) % len(batches)]
    base = Simulated(there, _follow(batch, recorder), LocalTraining(mode=mode))
    parts = [_part(base, term, batch, passes[-1]) for term in expression.terms]
    away = {k: last.values[k] - v for k, v in recorder.parameters.items()}
    weights, l2, proximal = _with_penalties(base, parts, away)
    scale = [w * common for w in weights]
    if len(scale) > 1 or not _near(scale, [1.0]):
        task = _with_coefficients(task, expression, scale)
    now = dict(recorder.model.named_parameters())
    moved = {k: now[k].detach() - v for k, v in recorder.parameters.items()}
    penalties = {"l2": l2 * common, "proximal": proximal * common}
    settings: dict[str, Any] = {**_sizes(sizes), **recipe, **clipping, **penalties}
    local = LocalTraining(mode=mode, sends="difference", epochs=recorder.steps // len(batches), **settings)
    held = sum((rounding(p) * p.double().norm().item()) ** 2 for p in recorder.parameters.values()) ** 0.5
    lost = recorder.steps**0.5 * held / max(flat(moved).norm().item(), torch.finfo(torch.float64).tiny)
    update = Update(moved, "difference", rounding=lost)
    found = replay(
        _observation(recorder, task, update, local), whole, randomness=[p.state for p in passes], seconds=0.0
    )
    if found.status != "exact":
        raise ValueError(f"the difference that it gives is not the recorded one (gap {found.relative_gap:.2g})")
    return Fit(task, local, update)


def _recipes(
    recorder: Recorder, weights: Sequence[float], shares: Sequence[float], sizes: tuple[int, ...], l2: float, mode: Mode
) -> Iterator[LocalTraining]:
    """Recipes with these coefficients, the simplest first: the whole batch at once, then micro-batch by micro-batch."""
    change = recorder.stepped[0].change
    plain = _near(weights, shares)
    clipping: dict[str, Any] = {}
    if change.kind == "scaled" and plain and change.factor < 1:
        clipping = {"clip_norm": change.norm + 1e-6 * change.factor}
    elif change.kind in ("scaled", "clamped"):
        weights, l2 = [w * change.factor for w in weights], l2 * change.factor
        clipping = {"clip_value": change.bound} if change.kind == "clamped" else {}
    rate = float(recorder.stepped[0].settings["lr"][0])
    common = {"mode": mode, "learning_rate": rate or LocalTraining.learning_rate, "l2": l2, **clipping}
    total = sum(weights)
    if _near(weights, [total * share for share in shares]):
        yield LocalTraining(**common, weights=() if _near([total], [1.0]) else (_simple(total),))
    factors = () if _near(weights, shares) else tuple(map(_simple, weights))
    if len(sizes) > 1:
        yield LocalTraining(**common, batch_sizes=sizes, weights=factors)


def _coefficients(base: Simulated, parts: Sequence[Tensors]) -> tuple[list[float], float]:
    """The factors on the parts, and that of an L2 term if one is needed. Raises: ValueError when none fit."""
    weights = least_squares(base.received, parts)
    if explains(base, parts, weights):
        return weights, 0.0
    held = base.observation.parameters
    *weights, l2 = least_squares(base.received, [*parts, held])
    if l2 > 0 and explains(base, [*parts, held], [*weights, l2]):
        return weights, l2
    gap = (flat(base.received) - flat(_sum([*parts, held], [*weights, l2]))).norm() / flat(base.received).norm()
    raise ValueError(f"{gap.item():.2g} of the gradient is left unexplained by the loss that was seen")


def _idle(parts: Sequence[Tensors], weights: Sequence[float]) -> tuple[int, ...]:
    """Passes with a gradient of which nothing arrived: validation, or a backward pass that was thrown away."""
    most = max(map(abs, weights))
    return tuple(k for k, w in enumerate(weights) if abs(w) <= PLAIN * most and any(t.any() for t in parts[k].values()))


def _with_penalties(base: Simulated, parts: Sequence[Tensors], away: Tensors) -> tuple[list[float], float, float]:
    """The factors on the parts, of an L2 term, and of a proximal term."""
    try:
        return *_coefficients(base, parts), 0.0
    except ValueError:
        held, count = base.observation.parameters, len(parts)
        if not any(t.any() for t in away.values()):
            raise
        for more in ([away], [held, away]):
            found = least_squares(base.received, [*parts, *more])
            if min(found[count:]) > 0 and explains(base, [*parts, *more], found):
                return found[:count], found[count] if len(more) > 1 else 0.0, found[-1]
        raise


def _part(base: Simulated, term: Any, batch: Batch, read: Pass) -> Tensors:
    """The gradient of one term over one pass, with the random draws and the precision that the pass had."""
    o = base.observation
    alone = Simulated(replace(o, task=replace(o.task, step_loss=term, known={})), base.follow(batch), base.local)
    with _precision(read):
        return alone.update(drawing=True, randomness=[read.state])


def _with_coefficients(task: Task, expression: Expression, weights: Sequence[float]) -> Task:
    terms = [term for term in expression.terms if isinstance(term, WatchedStep)]
    if len(terms) < len(weights):
        raise ValueError(f"the step's own loss came in with a factor of {weights[0]:.4g}; put it into step=")
    losses = tuple(term.losses[0] for term in terms)
    return replace(task, step_loss=replace(terms[0], losses=losses, coefficients=tuple(map(_simple, weights))))


def _simulated(recorder: Recorder, task: Task, update: Update, batch: Batch, mode: Mode) -> Simulated:
    observation = _observation(recorder, task, update, LocalTraining(mode=mode))
    return Simulated(observation, _follow(batch, recorder), observation.local)


def _observation(recorder: Recorder, task: Task, update: Update, local: LocalTraining) -> Observation:
    return Observation(task, recorder.parameters, buffers_of(task.model), update, local)


def _follow(batch: Batch, recorder: Recorder) -> Batch:
    like = next(iter(recorder.parameters.values()))
    return batch.to(like.device, torch.promote_types(like.dtype, torch.float32))


def _carried(recorder: Recorder) -> float:
    """Of gradients computed in half precision: a few of its units."""
    coarse = max(torch.finfo(p.dtype).eps for p in recorder.parameters.values())
    return 8 * coarse if coarse > 1e-6 else 0.0


def _sizes(sizes: tuple[int, ...]) -> dict[str, Any]:
    even = all(size == sizes[0] for size in sizes[:-1]) and sizes[-1] <= sizes[0]
    return {"batch_size": sizes[0]} if even else {"batch_sizes": sizes}


def _sum(parts: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Tensor]:
    return {name: sum((w * part[name] for w, part in zip(weights, parts)), torch.zeros(())) for name in parts[0]}


def _near(values: Sequence[float], wanted: Sequence[float]) -> bool:
    return all(abs(v - w) <= PLAIN * abs(w) for v, w in zip(values, wanted, strict=True))


def _simple(value: float) -> float:
    """The simple fraction that a coefficient is to the rounding of its fit, or itself."""
    near = float(Fraction(value).limit_denominator(1000))
    return near if abs(near - value) <= 1e-5 * abs(value) else value


@contextmanager
def _precision(read: Pass) -> Iterator[None]:
    if read.precision is None:
        yield
        return
    with torch.autocast(read.inputs.device.type, read.precision):
        yield
