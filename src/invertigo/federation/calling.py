"""The model as a function of its inputs and its state, which nothing it does can change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from invertigo.types import widened


def state_of(model: nn.Module, *given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All parameters and buffers by name: those `given`, and the model's own for the rest.

    Buffers are copies, because layers write into them (BatchNorm, spectral norm). The model's own follow the precision
    of what is given, and half precision is widened, as it is in an `Observation`.
    """
    told = {name: tensor for part in given for name, tensor in part.items()}
    double = any(tensor.dtype == torch.float64 for tensor in told.values())
    own = {n: _follow(p, double) for n, p in model.named_parameters() if n not in told}
    moving = {n: told.pop(n) if n in told else _follow(b, double) for n, b in model.named_buffers()}
    return {**own, **told, **{n: b.clone() for n, b in moving.items()}}


def _follow(tensor: Tensor, double: bool) -> Tensor:
    return tensor.double() if double and tensor.is_floating_point() else widened(tensor)


def calling(model: nn.Module, *given: Mapping[str, Tensor]) -> Callable[..., Any]:
    """`model` with the parameters and buffers `given`. It reads copies of its inputs: some models write into them."""
    state = state_of(model, *given)

    def call(*inputs: Any, **named: Any) -> Any:
        inputs = tuple(map(copied, inputs))
        return functional_call(model, state, inputs, {name: copied(value) for name, value in named.items()})

    return call


def copied(value: Any) -> Any:
    """A copy of a tensor, through which gradients flow; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) else value


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Inside, compiled parts of the model run as they were written: compiled code has no second derivative."""
    compiled = any(
        module._compiled_call_impl is not None or "_orig_mod" in module._modules for module in model.modules()
    )
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def plain_attributes_kept(model: nn.Module) -> Iterator[None]:
    """Put back tensors that modules hold as plain attributes: old-style weight norm leaves simulated ones behind."""
    before = [
        (module, {name: value for name, value in vars(module).items() if isinstance(value, Tensor)})
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for module, held in before:
            vars(module).update(held)
