"""What each example's own gradient says of a parameter whose use in the forward pass is not understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from invertigo.federation import simulating
from invertigo.types import Local, UseSignals

MOST = 2**27
"""Entries of per-example gradients that are computed at most: examples times parameters."""


def own_slopes(
    local: Local, state: Mapping[str, Tensor], fields: Mapping[str, Tensor], names: Sequence[str]
) -> tuple[list[UseSignals], dict[str, str]]:
    """Rows of each example's own gradient, and why there are none.

    A row's gradient is read along one random direction. Where the row multiplies an input that is the slope times a
    number of the example's own, so which examples stand alone in rows and in combinations of rows stays the same.
    """
    if not names:
        return [], {}
    examples = min(len(t) for t in fields.values())
    mixing = [m for m in local.task.model.modules() if isinstance(m, _BatchNorm)]
    if mixing and local.training.mode == "train":
        return [], dict.fromkeys(names, "its use is not understood, and BatchNorm mixes the examples")
    if examples * sum(state[name].numel() for name in names) > MOST:
        return [], dict.fromkeys(names, "its use is not understood, and it is too large to try example by example")
    try:
        return _by_example(local, state, fields, names, examples), {}
    except (RuntimeError, ValueError, IndexError) as error:
        return [], dict.fromkeys(names, f"its use is not understood, and one example alone does not pass ({error})")


def _by_example(
    local: Local, state: Mapping[str, Tensor], fields: Mapping[str, Tensor], names: Sequence[str], examples: int
) -> list[UseSignals]:
    lines = {name: _lines(state[name]) for name in names}
    kept: dict[tuple[str, int], list[Tensor]] = {(name, axis): [] for name in names for axis in lines[name]}
    with simulating(local.task.model, local.training.mode), torch.enable_grad():
        for i in range(examples):
            loss = local.task.evaluate(
                lambda *inputs, **named: functional_call(local.task.model, dict(state), inputs, named),
                {name: tensor[i : i + 1] for name, tensor in fields.items()},
            )
            found = torch.autograd.grad(loss.sum(), [state[name] for name in names], allow_unused=True)
            for name, gradient in zip(names, found):
                whole = torch.zeros_like(state[name]) if gradient is None else gradient
                for axis, line in lines[name].items():
                    kept[name, axis].append(_rows(whole, axis).double() @ line)
    owner = torch.arange(examples)
    return [
        UseSignals(
            name, "own", torch.stack(each), 1.0, owner, parameter_size=state[name].numel(),
            entries=None if axis == 0 else _rows(torch.arange(state[name].numel()).reshape(state[name].shape), axis),
        )
        for (name, axis), each in kept.items()
    ]  # fmt: skip


def _lines(parameter: Tensor) -> dict[int, Tensor]:
    """A random direction for the rows along the first axis, and along the last where there are several."""
    generator = torch.Generator().manual_seed(0)
    sizes = {0: _rows(parameter, 0).shape[1]}
    if parameter.ndim > 1:
        sizes[parameter.ndim - 1] = _rows(parameter, parameter.ndim - 1).shape[1]
    return {
        axis: torch.randn(size, generator=generator, dtype=torch.float64).to(parameter.device)
        for axis, size in sizes.items()
    }


def _rows(tensor: Tensor, axis: int) -> Tensor:
    """(row, rest) along an axis."""
    return tensor.reshape(1, 1) if tensor.ndim == 0 else tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
