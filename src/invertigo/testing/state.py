"""A snapshot of everything an attack must leave as it found it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from invertigo.types import Batch, Observation

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def of_model(model: nn.Module) -> dict[str, Any]:
    """Modes, hooks, parameters with their gradients and `requires_grad`, and buffers, by readable name."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        where = f"of module '{name}'" if name else "of the model"
        found[f"the mode (train or eval) {where}"] = module.training
        found[f"the hooks {where}"] = sum(len(getattr(module, kind, ())) for kind in _HOOKS)
    for name, parameter in model.named_parameters():
        found[f"parameter '{name}'"] = parameter.detach().clone()
        found[f"the .grad of parameter '{name}'"] = None if parameter.grad is None else parameter.grad.clone()
        found[f"requires_grad of parameter '{name}'"] = parameter.requires_grad
    for name, buffer in model.named_buffers():
        found[f"buffer '{name}'"] = buffer.clone()
    return found


def of_process() -> dict[str, Any]:
    """PyTorch's and NumPy's global random states and PyTorch's global switches.

    Python's own is not among them, since run-time type checkers draw from it: see `seeds_python`.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "PyTorch's global random state": torch.get_rng_state(),
        "PyTorch's random state on CUDA": torch.stack(cuda) if cuda else None,
        "NumPy's global random state": repr(numpy.random.get_state(legacy=True)),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
    }


def seeds_python(action: Callable[[], object]) -> bool:
    """Does `action` leave Python's global random state the same, wherever it stood before?"""
    saved, ends = random.getstate(), []
    for start in (1, 2):
        random.setstate(random.Random(start).getstate())
        action()
        ends.append(random.getstate())
    random.setstate(saved)
    return ends[0] == ends[1]


def of_observation(observation: Observation) -> dict[str, Any]:
    """Every tensor that the adversary holds, by readable name."""
    known = observation.knowledge
    groups: dict[str, Mapping[str, Tensor]] = {
        "parameters": observation.parameters,
        "buffers": observation.buffers,
        "update.tensors": observation.update.tensors,
        "update.buffers": observation.update.buffers or {},
        "knowledge.public": of_batch(known.public) if known.public is not None else {},
        "knowledge.plant.state": known.plant.state if known.plant is not None else {},
        "knowledge.plant.memo": known.plant.memo if known.plant is not None else {},
        "knowledge": {} if known.labels is None else {"labels": known.labels},
    }
    for name, (mean, variance) in (known.batch_statistics or {}).items():
        groups[f"knowledge.batch_statistics['{name}']"] = {"mean": mean, "variance": variance}
    return {
        f"observation.{group}['{name}']": tensor.clone()
        for group, named in groups.items()
        for name, tensor in named.items()
    }


def of_batch(batch: Batch) -> dict[str, Tensor]:
    """The fields of a batch, copied."""
    return {name: tensor.clone() for name, tensor in batch.fields.items()}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of what differs, bit by bit; also what appeared or went away."""
    return [name for name in {**before, **after} if not _same(before.get(name), after.get(name))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and one == other
