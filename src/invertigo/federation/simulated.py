"""The step that the attacks simulate, put to the truth: what it gives, and whether that is what was received."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor

from invertigo.federation.comparison import LayerGap, allowance, compare, flat, overall
from invertigo.federation.functional import functional_update, simulating
from invertigo.federation.randomness import SEED, RandomState
from invertigo.types import Batch, LocalTraining, Observation

Tensors = Mapping[str, Tensor]
LOUDEST = 1e-3
"""Relative difference to double precision above which it is no rounding: random draws differ between precisions."""
Status = Literal["exact", "scaled", "differs", "random", "impossible"]


@dataclass(frozen=True)
class Replay:
    """How well the truth explains the update, put through the simulated step.

    `exact`: to rounding. `scaled`: one positive factor `scale` on the simulated update explains it. `random`: the
    client's forward pass draws random numbers that were not recorded. `differs`: anything else, with the likely
    `cause`. `impossible`: the step could not be simulated. `tolerance` is the relative gap that rounding may cause.
    """

    relative_gap: float
    cosine: float
    scale: float
    layers: tuple[LayerGap, ...]
    status: Status
    cause: str
    seconds: float
    tolerance: float


@dataclass(frozen=True)
class Simulated:
    """The step that the attacks simulate, on the true batch; each hypothesis is a change of it."""

    observation: Observation
    truth: Batch
    local: LocalTraining

    def changed(self, **changes: Any) -> Simulated:
        """The same truth under another recipe: `LocalTraining` fields by name."""
        return replace(self, local=replace(self.local, **changes))

    @property
    def received(self) -> Tensors:
        """The update as the adversary holds it, in the parameters' order."""
        tensors = self.observation.update.tensors
        return {name: tensors[name] for name in self.observation.parameters}

    def follow(self, batch: Batch) -> Batch:
        """A batch on the device and in the dtype of the parameters."""
        like = next(iter(self.observation.parameters.values()))
        return batch.to(like.device, like.dtype if like.is_floating_point() else None)

    @cached_property
    def quiet(self) -> Tensors:
        """The update as the attacks simulate it."""
        return self.update()

    @cached_property
    def noise(self) -> Tensors:
        """That update less its repetition in double precision: rounding; zeros where it cannot be told."""
        try:
            double = self.quiet if self.computes_in_double else self.update(double=True)
        except (RuntimeError, TypeError, ValueError):
            double = self.quiet
        noise = {name: tensor.double() - double[name] for name, tensor in self.quiet.items()}
        if flat(noise).norm() > LOUDEST * flat(self.quiet).norm():
            return {name: torch.zeros_like(tensor) for name, tensor in noise.items()}
        return noise

    @property
    def computes_in_double(self) -> bool:
        """The model computes in double precision anyway."""
        return all(t.dtype == torch.float64 for t in self.observation.parameters.values())

    def update(
        self, *, drawing: bool = False, randomness: Sequence[RandomState] = (), seed: int = SEED, double: bool = False
    ) -> Tensors:
        """The simulated update; with `drawing`, dropout is drawn as the client draws it."""
        o, truth = self.observation, self.truth
        cast = partial(_double, double)
        task = o.task
        simulate = functional_update(
            task, cast(o.parameters), cast(o.buffers), self.local, len(truth),
            transformable=False, randomness=randomness, seed=seed,
        )  # fmt: skip
        with simulating(task.model, self.local.mode, drawing=drawing), torch.enable_grad():
            return {name: tensor.detach() for name, tensor in simulate(cast(truth.fields)).update.items()}


def verdict(step: Simulated, replayed: Tensors) -> Replay:
    """Exact, scaled or neither, of one simulated update (or of what a hypothesis made of it)."""
    received, carried = step.received, step.observation.update.rounding
    found = _fits(received, replayed, None, carried) or _fits(received, replayed, step.noise, carried)
    if found is not None:
        return found
    return _measured(received, replayed, allowance(received, replayed, step.noise, carried), "differs", "")


def _fits(received: Tensors, replayed: Tensors, noise: Tensors | None, carried: float) -> Replay | None:
    """The verdict `exact` or `scaled`, or None."""
    allowed = allowance(received, replayed, noise, carried)
    found = _measured(received, replayed, allowed, "exact", "")
    if not any(layer.unexplained for layer in found.layers):
        return found
    if found.scale <= 0:
        return None
    scaled = {name: found.scale * tensor for name, tensor in replayed.items()}
    allowed = {name: found.scale * size for name, size in allowed.items()}
    if any(layer.unexplained for layer in compare(received, scaled, allowed)):
        return None
    return _measured(received, replayed, allowed, "scaled", f"the update is {found.scale:.4g} times the simulated one")


def _measured(received: Tensors, replayed: Tensors, allowed: Mapping[str, float], status: Status, cause: str) -> Replay:
    gap, cosine, scale = overall(received, replayed)
    size = flat(received).norm().item()
    tolerance = sum(v**2 for v in allowed.values()) ** 0.5 / size if size else 0.0
    return Replay(gap, cosine, scale, compare(received, replayed, allowed), status, cause, 0.0, tolerance)


def _double(wanted: bool, tensors: Tensors) -> Tensors:
    if not wanted:
        return tensors
    return {k: t.double() if t.is_floating_point() else t for k, t in tensors.items()}


def least_squares(received: Tensors, parts: Sequence[Tensors]) -> list[float]:
    """Coefficients of the sum of `parts` that is nearest to the received update."""
    rows = torch.stack([flat({name: part[name] for name in received}) for part in parts])
    lengths = rows.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    rows = rows / lengths[:, None]
    solved = torch.linalg.lstsq(rows @ rows.T, rows @ flat(received), driver="gelsd").solution
    return (solved / lengths).tolist()


def explains(step: Simulated, parts: Sequence[Tensors], weights: Sequence[float]) -> bool:
    """The weighted sum of the parts is the received update, to rounding."""
    total = {
        name: sum((w * part[name].double() for w, part in zip(weights, parts)), torch.zeros((), dtype=torch.float64))
        for name in step.received
    }
    return verdict(step, {name: t.to(step.received[name].dtype) for name, t in total.items()}).status == "exact"
