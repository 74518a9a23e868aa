"""What a model's `forward` does that its modules do not show: run it on made-up examples and look."""

from __future__ import annotations

from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from invertigo.federation.calling import calling
from invertigo.federation.functional import simulating
from invertigo.federation.randomness import SEED, cuda_devices, reseed
from invertigo.types import Task

Mode = Literal["train", "eval"]

_FOUND: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether training and inference mode differ, by model: its code does not change, and rungs ask often."""


def differs_in_dry_run(task: Task) -> bool:
    """The model answers otherwise in training than in inference mode; False where it cannot be run."""
    if task.model not in _FOUND:
        train, infer = dry_run(task, "train", SEED), dry_run(task, "eval", SEED)
        _FOUND[task.model] = not _same(train, infer)
    return _FOUND[task.model]


def draws_randomly(task: Task, mode: Mode) -> bool:
    """The model's answer depends on the random state: dropout as a module or a function, noise, stochastic depth."""
    return not _same(dry_run(task, mode, SEED), dry_run(task, mode, SEED + 1))


def dry_run(task: Task, mode: Mode, seed: int) -> list[Tensor]:
    """Every tensor that the model answers in one step on made-up examples; nothing of the model is changed."""
    seen: list[Tensor] = []
    run = calling(task.model, dict(task.model.named_parameters()))

    def call(*inputs: Any, **named: Any) -> Any:
        output = run(*inputs, **named)
        seen.extend(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
        return output

    with simulating(task.model, mode, drawing=True), torch.no_grad():
        reseed(cuda_devices(task.model.parameters()), seed)
        try:
            task.evaluate(call, _made_up(task))
        except Exception:
            # The loss, or the model, reads something else than made-up examples: what was answered before counts.
            return seen
    return seen


def _made_up(task: Task) -> dict[str, Tensor]:
    """Examples between the bounds of the domain, and class 0."""
    like = next(task.model.parameters())
    count = max((len(t) for t in task.known.values()), default=2)
    generator = torch.Generator().manual_seed(SEED)
    fields: dict[str, Tensor] = {task.domain.target: torch.zeros(count, dtype=torch.long, device=like.device)}
    for name, shape in task.domain.example_shapes().items():
        low, high = task.domain.bounds(name)
        drawn = torch.rand(count, *shape, generator=generator, dtype=torch.float64)
        fields[name] = (low + (high - low) * drawn).to(like.device, like.dtype)
    return fields


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other))
