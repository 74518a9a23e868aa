"""PyTorch's optimizers as pure functions of the slopes, so that one can differentiate through the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from invertigo.types import LocalTraining, MismatchError

Tensors = Mapping[str, Tensor]

SETTINGS = ("learning_rate", "momentum", "dampening", "nesterov", "maximize", "weight_decay", "betas", "eps")


@dataclass
class Descent:
    """The optimizer of `local`, from rest: `values = descent.step(values, slopes)`, one call a local step.

    It computes what `torch.optim.SGD`, `Adam` and `AdamW` compute, in the same order of operations, out of place.
    """

    local: LocalTraining
    taken: int = 0
    memory: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)

    def step(self, values: Tensors, slopes: Tensors) -> dict[str, Tensor]:
        """The parameters after one more step along `slopes`."""
        self.taken += 1
        move = self._sgd if self.local.optimizer == "sgd" else self._adam
        return {name: move(name, values[name], slopes[name]) for name in values}

    def _sgd(self, name: str, value: Tensor, slope: Tensor) -> Tensor:
        one = self.settings(name)
        slope = -slope if one["maximize"] else slope
        slope = slope + one["weight_decay"] * value if one["weight_decay"] else slope
        if one["momentum"]:
            past = self.memory.get(name)
            kept = slope if past is None else one["momentum"] * past[0] + (1 - one["dampening"]) * slope
            self.memory[name] = (kept,)
            slope = slope + one["momentum"] * kept if one["nesterov"] else kept
        return value - one["learning_rate"] * slope

    def _adam(self, name: str, value: Tensor, slope: Tensor) -> Tensor:
        one = self.settings(name)
        rate, (first, second) = one["learning_rate"], one["betas"]
        slope = -slope if one["maximize"] else slope
        if self.local.optimizer == "adamw":
            value = value * (1 - rate * one["weight_decay"])
        elif one["weight_decay"]:
            slope = slope + one["weight_decay"] * value
        mean, square = self.memory.get(name, (torch.zeros_like(slope), torch.zeros_like(slope)))
        mean, square = first * mean + (1 - first) * slope, second * square + (1 - second) * slope * slope
        self.memory[name] = (mean, square)
        root = _root(square) / (1 - second**self.taken) ** 0.5 + one["eps"]
        return value - rate / (1 - first**self.taken) * mean / root

    def settings(self, name: str) -> dict[str, Any]:
        """The hyper-parameters of parameter `name` in the present step."""
        group = self._groups.get(name)
        found = {key: getattr(self.local, key) for key in SETTINGS}
        found["learning_rate"] = self.local.rate(self.taken - 1)
        if group is not None:
            found |= {key: own for key in SETTINGS if (own := getattr(group, key)) is not None}
            if group.learning_rates is not None:
                found["learning_rate"] = group.learning_rates[self.taken - 1]
        return found

    @cached_property
    def _groups(self) -> dict[str, Any]:
        return {name: group for group in self.local.groups for name in group.names}


def shaped(local: LocalTraining, slopes: Tensors, values: Tensors, start: Tensors) -> dict[str, Tensor]:
    """The slopes that the optimizer reads: with the penalties of the recipe, then clipped as it says."""
    found = dict(slopes)
    if local.l2:
        found = {name: slope + local.l2 * values[name] for name, slope in found.items()}
    if local.proximal:
        found = {name: slope + local.proximal * (values[name] - start[name]) for name, slope in found.items()}
    if local.clip_value is not None:
        found = {name: slope.clamp(-local.clip_value, local.clip_value) for name, slope in found.items()}
    if local.clip_norm is not None:
        # Squares and a safe root: the derivative of a norm at zero is not a number.
        norm = _root(sum((slope.square().sum() for slope in found.values()), torch.zeros(())).to(_like(found)))
        factor = (local.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        found = {name: slope * factor for name, slope in found.items()}
    return found


def check_groups(local: LocalTraining, names: Tensors, steps: int) -> None:
    """Raises: MismatchError when a group or a schedule does not fit the model and the number of steps."""
    unknown = [name for group in local.groups for name in group.names if name not in names]
    if unknown:
        raise MismatchError(
            f"LocalTraining.groups names '{unknown[0]}', which is no trainable parameter of this model."
        )
    for rates in (local.learning_rates, *(group.learning_rates for group in local.groups)):
        if rates and len(rates) != steps:
            raise MismatchError(
                f"LocalTraining.learning_rates holds {len(rates)} rates, but the client takes {steps} local steps."
            )


def _like(tensors: Tensors) -> Tensor:
    return next(iter(tensors.values()))


def _root(square: Tensor) -> Tensor:
    """The square root, whose derivative at zero is zero rather than infinite."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
