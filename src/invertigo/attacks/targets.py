"""What a loss reads beside the model's output: class numbers, yes or no, or real numbers; learned by asking it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from invertigo.attacks.classifier import probe_images
from invertigo.attacks.dry_run import ERRORS, dry_run, for_rows
from invertigo.federation.calling import calling
from invertigo.federation.functional import simulating
from invertigo.types import Observation, RequirementError, tensors_in


@dataclass(frozen=True)
class Targets:
    """Targets of one example: "classes" (a number below `classes`, at each place of `shape`), "binary" (0.0 or 1.0 at
    each place) or "real".
    """

    kind: Literal["classes", "binary", "real"]
    shape: tuple[int, ...] = ()
    classes: int = 0

    @property
    def unknowns(self) -> tuple[int, ...]:
        """Shape of the free numbers that stand for the target of one example."""
        return (self.classes, *self.shape) if self.kind == "classes" else self.shape

    def soft(self, free: Tensor) -> Tensor:
        """Targets that the loss can read, differentiable in the free numbers (batch, *unknowns)."""
        if self.kind == "real":
            return free
        return free.sigmoid() if self.kind == "binary" else free.softmax(-1 - len(self.shape))

    def settled(self, soft: Tensor) -> Tensor:
        """Hard targets out of soft ones."""
        if self.kind == "real":
            return soft
        return (soft > 0.5).to(soft.dtype) if self.kind == "binary" else soft.argmax(-1 - len(self.shape))

    def choices(self, like: Tensor, limit: int = 64) -> Tensor | None:
        """(choice, *shape) all targets there are; None of real ones and of more than `limit`."""
        if self.kind == "classes" and not self.shape:
            return torch.arange(self.classes, device=like.device)
        places = torch.Size(self.shape).numel()
        if self.kind != "binary" or 2**places > limit:
            return None
        bits = torch.arange(2**places, device=like.device)[:, None] >> torch.arange(places, device=like.device) & 1
        return bits.to(like.dtype).unflatten(1, self.shape) if self.shape else bits[:, 0].to(like.dtype)


def float_targets(observation: Observation) -> Targets | None:
    """The form of floating targets that this loss reads; None where it reads none that a dry run finds.

    A form counts when an example's derivative depends on its own target and its direction on no other one's (which
    silent broadcasting breaks). The targets are binary when the derivative is positive at 0 and negative at 1 whatever
    the output, or when the loss refuses outputs outside [0, 1]; a squared or absolute error is neither.
    """
    count = 5
    shapes = _output_shapes(observation, count)
    for shape in dict.fromkeys([*(s[1:] for s in shapes), (), (1,)]):
        ask = _Asked(observation, count, shape)
        if ask.reads():
            return Targets("binary" if ask.binary() else "real", tuple(shape))
    return None


def dense_classes(observation: Observation) -> Targets | None:
    """Class numbers at each place of an output (batch, class, *place), as in segmentation; None without any."""
    for shape in _output_shapes(observation, 2):
        if len(shape) > 2 and shape[1] > 1:
            ask = _Asked(observation, 2, (), shape[1:])
            if ask.derivatives(torch.full(shape, 1 / shape[1])) is not None:
                return Targets("classes", tuple(shape[2:]), shape[1])
    return None


@dataclass(frozen=True)
class _Asked:
    """The derivative of the loss by the model's outputs, for targets of a shape and outputs of our choice."""

    observation: Observation
    count: int
    shape: tuple[int, ...]
    full: tuple[int, ...] | None = None

    def derivatives(self, target: Tensor, value: Callable[[Tensor], Tensor] | None = None) -> Tensor | None:
        """(row, output) or None where the loss does not take this target."""
        task = self.observation.task
        leaves: list[Tensor] = []

        def replaced(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point() or tensor.ndim == 0 or len(tensor) != self.count:
                return tensor
            leaves.append((tensor if value is None else value(tensor)).detach().requires_grad_())
            return leaves[-1].clone()

        inner = calling(task.model, self.observation.buffers, self.observation.parameters)
        images = probe_images(self.observation, self.count)
        fields = {task.domain.inputs: images, task.domain.target: target.to(images)}
        try:
            with simulating(task.model, "eval"), torch.enable_grad():
                loss = for_rows(task, self.count).evaluate(
                    lambda *a, **k: with_tensors(inner(*a, **k), replaced), fields
                )
                grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        except ERRORS:
            return None
        found = [g.reshape(len(g), -1) for g in grads if g is not None]
        return torch.cat(found, 1).double() if found else None

    def _target(self, value: float) -> Tensor:
        return torch.full((self.count, *self.shape), value)

    def reads(self) -> bool:
        """Each example's derivative depends on its own target, and on no other one's but by a factor."""
        other = self._target(0.0)
        other[0] = 1.0
        before, after = self.derivatives(self._target(0.0)), self.derivatives(other)
        if before is None or after is None or not bool(torch.isfinite(before).all() & torch.isfinite(after).all()):
            return False
        moved = (after[0] - before[0]).abs().max() > 1e-4 * before.abs().max().clamp_min(1e-12)
        alike = torch.nn.functional.cosine_similarity(before[1:], after[1:], dim=1)
        return bool(moved & ((alike > 1 - 1e-5) | (before[1:].norm(dim=1) == 0)).all())

    def binary(self) -> bool:
        """The derivative tells 0 from 1 by its sign, wherever the output lies."""

        def spread(low: float, high: float) -> Callable[[Tensor], Tensor]:
            return lambda t: torch.linspace(low, high, t.numel()).to(t).reshape(t.shape)

        sides = [self.derivatives(self._target(t), spread(-3.0, 3.0)) for t in (0.0, 1.0)]
        if sides[0] is None or sides[1] is None:
            return self.derivatives(self._target(0.0), spread(0.1, 0.9)) is not None
        told = (sides[0] != 0) | (sides[1] != 0)
        return bool(((sides[0] > 0) & (sides[1] < 0))[told].all())


def _output_shapes(observation: Observation, count: int) -> list[tuple[int, ...]]:
    task = observation.task
    try:
        with simulating(task.model, "eval"), torch.no_grad():
            output = dry_run(task, probe_images(observation, count), observation.buffers, observation.parameters)
    except (*ERRORS, RequirementError):
        return []
    return [tuple(t.shape) for t in tensors_in(output) if t.is_floating_point() and t.ndim and len(t) == count]


def with_tensors(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A model's output of whatever form, with its tensors changed."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, (tuple, list)):
        parts = [with_tensors(part, change) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    made = copy.copy(output)
    if isinstance(output, Mapping):
        for name, part in output.items():
            made[name] = with_tensors(part, change)  # type: ignore[index]
    elif hasattr(output, "__dict__"):
        for name, part in vars(output).items():
            setattr(made, name, with_tensors(part, change))
    return made
