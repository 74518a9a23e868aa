"""Convolutions whose second derivative costs only what gradient matching asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode


class _Geometry(NamedTuple):
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class LeanConvolutions(TorchFunctionMode):
    r"""Inside, `conv2d` spends no work that $\partial_x \langle v, \nabla_\theta L(x, \theta) \rangle$ does not need.

    PyTorch's derivative of a convolution's backward pass also forms the derivative for the weights, although only the
    one for the data is asked for: an eighth of all convolutions of a network. For models run under autograd's tape
    whose final derivative is taken for the data alone. Not for `torch.func`, which these functions do not support.
    Convolutions whose weights were computed (later local steps) are left to PyTorch.
    """

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch for every function run inside."""
        if func is torch.conv2d:
            return _convolution(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolution(
    native: Callable, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    if isinstance(padding, str) or input.ndim != 4 or not (weight.is_leaf and weight.requires_grad):
        return native(input, weight, bias, stride, padding, dilation, groups)
    return _Forward.apply(input, weight, bias, _Geometry(_pair(stride), _pair(padding), _pair(dilation), groups))


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


class _Forward(Function):
    """y = w * x + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return torch.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Differentiated again: this is the pass to the weights.
            to_bias = cotangents[0].sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
            return *_Backward.apply(cotangents[0], x, weight, ctx.geometry), to_bias, None
        to_input = _to_input(cotangents[0], x, weight, ctx.geometry) if ctx.needs_input_grad[0] else None
        return to_input, None, None, None


class _Backward(Function):
    """The cotangents of x and of w; its own derivative leaves out w."""

    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Any:
        ctx.save_for_backward(cotangent, x, weight)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        return _backward(cotangent, x, weight, geometry, [ctx.needs_input_grad[1], True, False])[:2]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        of_input, of_weight = cotangents
        cotangent, x, weight = ctx.saved_tensors
        first = None if of_input is None else torch.conv2d(of_input, weight, None, *ctx.geometry)
        if of_weight is None:
            return first, None, None, None
        second = torch.conv2d(x, of_weight, None, *ctx.geometry)
        to_input = _to_input(cotangent, x, of_weight, ctx.geometry) if ctx.needs_input_grad[1] else None
        return second if first is None else second.add_(first), to_input, None, None


def _to_input(cotangent: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    return _backward(cotangent, x, weight, geometry, [True, False, False])[0]


def _backward(cotangent: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry, wanted: list[bool]) -> Any:
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(
        cotangent, x, weight, None, stride, padding, dilation, False, [0, 0], groups, wanted
    )
