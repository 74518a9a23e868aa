"""The recipe of watched local steps: the optimizer's settings, its schedule and groups, and clipping in the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from invertigo.federation.recorder import Recorder, Stepped
from invertigo.types import ParameterGroup, RequirementError

_KINDS = {torch.optim.SGD: "sgd", torch.optim.Adam: "adam", torch.optim.AdamW: "adamw"}
_NAMES = {
    "lr": "learning_rate", "momentum": "momentum", "dampening": "dampening", "nesterov": "nesterov",
    "maximize": "maximize", "weight_decay": "weight_decay", "betas": "betas", "eps": "eps",
}  # fmt: skip
SAME = 1e-3
"""Relative difference of bounds that count as one: a clipped norm is known to the rounding of the gradient."""


def optimizer_recipe(recorder: Recorder) -> dict[str, Any]:
    """Fields of `LocalTraining` that say what the optimizer did.

    Raises: RequirementError for an optimizer, or a state or setting of it, that cannot be repeated.
    """
    _check(recorder)
    settings = [step.settings for step in recorder.stepped]
    kind = _KINDS[type(recorder.optimizer)]
    kind = "adamw" if kind == "adam" and any(settings[0]["decoupled_weight_decay"]) else kind
    count = len(settings[0]["lr"])
    groups = [_group(kind, settings, number) for number in range(count)]
    names = [_names(recorder, parameters) for parameters in settings[0]["params"]]
    groups, names = [g for g, n in zip(groups, names) if n], [n for n in names if n]
    own = [
        ParameterGroup(names=held, **{"learning_rates": None, **group})
        for held, group in zip(names[1:], groups[1:])
        if group != groups[0]
    ]
    first = {"learning_rate": max(groups[0]["learning_rate"], torch.finfo(torch.float64).tiny)}
    return {**groups[0], **first, "optimizer": kind, "groups": tuple(own)}


def clipping_recipe(stepped: Sequence[Stepped]) -> tuple[dict[str, float], float]:
    """Fields of `LocalTraining` that say how gradients were clipped in every step, and a factor common to all steps.

    Raises: RequirementError when the gradients were changed otherwise between backward and step.
    """
    changes = [step.change for step in stepped]
    kinds = {change.kind for change in changes}
    scaled = [change for change in changes if change.kind == "scaled"]
    if kinds == {"none"}:
        return {}, 1.0
    if kinds == {"scaled"} and len(changes) > 1 and _agree([c.factor for c in changes], 1e-5):
        return {}, changes[0].factor  # one factor whatever the norm: loss scaling
    if kinds <= {"none", "scaled"} and all(c.factor < 1 for c in scaled):
        bounds = [c.norm + 1e-6 * c.factor for c in scaled]
        below = all(c.norm <= bounds[0] * (1 + SAME) for c in changes)
        if _agree(bounds, SAME) and below:
            return {"clip_norm": sum(bounds) / len(bounds)}, 1.0
    bounds = [c.bound for c in changes if c.kind == "clamped"]
    if kinds <= {"none", "clamped"} and _agree(bounds, SAME) and _agree([c.factor for c in changes], SAME):
        return {"clip_value": max(bounds)}, 1.0
    raise RequirementError(
        "Between backward and optimizer.step() the gradients were changed in a way that cannot be repeated (not "
        "clipping by one norm or one value): noise, clipping an example or a layer at a time, or a hand-made change. "
        "Watch a single step, which is recorded as it was used, or audit such a client with a defense: defense=..."
    )


def _group(kind: str, settings: Sequence[Mapping[str, list[Any]]], number: int) -> dict[str, Any]:
    read = ["lr", "maximize", "weight_decay"]
    read += ["momentum", "dampening", "nesterov"] if kind == "sgd" else ["betas", "eps"]
    found: dict[str, Any] = {}
    for key in read:
        values = [_plain(one[key][number]) for one in settings]
        constant = all(value == values[0] for value in values)
        if key == "lr" and not constant:
            found |= {"learning_rate": values[0], "learning_rates": tuple(values)}
        elif not constant:
            raise RequirementError(
                f"The optimizer's {key} changed between the local steps ({values[:4]}), which a recipe cannot say. "
                "Watch a single step instead."
            )
        else:
            found[_NAMES[key]] = values[0]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return value if isinstance(value, bool) else float(value or 0.0)


def _names(recorder: Recorder, parameters: Sequence[nn.Parameter]) -> tuple[str, ...]:
    own = {id(p) for p in parameters}
    return tuple(n for n, p in recorder.model.named_parameters() if id(p) in own and n in recorder.parameters)


def _check(recorder: Recorder) -> None:
    name = type(recorder.optimizer).__name__
    problems = {
        f"the optimizer is {name}": type(recorder.optimizer) not in _KINDS,
        "it began with momentum or moments from earlier steps": recorder.warm,
        "it uses amsgrad": any(any(step.settings["amsgrad"]) for step in recorder.stepped),
    }
    found = [problem for problem, holds in problems.items() if holds]
    if found:
        raise RequirementError(
            f"{recorder.steps} optimizer step(s) were watched as a parameter difference, but {'; '.join(found)}. A "
            "difference is understood for SGD, Adam and AdamW of PyTorch that start from rest. "
            "Watch one step: then the gradient is recorded, whatever the optimizer."
        )


def _agree(values: Sequence[float], share: float) -> bool:
    return bool(values) and max(values) - min(values) <= share * max(values)
