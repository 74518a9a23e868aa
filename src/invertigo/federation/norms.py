"""Normalisation layers written out in elementary operations, for second derivatives under `torch.func.vmap`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ComposedNorms(TorchFunctionMode):
    r"""Inside the block, norms that compute their own statistics are $(x-\mu)/\sqrt{\sigma^2+\epsilon}$, spelled out.

    PyTorch's fused batch, instance and layer norm return a silently wrong second derivative when they are vmapped
    (the batching rule of their backward is wrong to first order in the input; group norm is right). One candidate at
    a time they are right and faster, so this stands only around the batched path. A test pins both facts.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace the fused norms, pass everything else on."""
        composed = _COMPOSED.get(function)
        return composed(function, *args, **(kwargs or {})) if composed else function(*args, **(kwargs or {}))


def _batch_norm(
    function: Callable,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return function(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _affine(_standardised(input, [d for d in range(input.ndim) if d != 1], eps), weight, bias)


def _instance_norm(
    function: Callable,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return function(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return _affine(_standardised(input, list(range(2, input.ndim)), eps), weight, bias)


def _layer_norm(
    function: Callable,
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    out = _standardised(input, list(range(input.ndim - len(normalized_shape), input.ndim)), eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _standardised(x: Tensor, dims: list[int], eps: float) -> Tensor:
    count = math.prod(x.shape[d] for d in dims)
    centred = x - x.sum(dims, keepdim=True) / count
    return centred * ((centred**2).sum(dims, keepdim=True) / count + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *[1] * (x.ndim - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


_COMPOSED: dict[Callable, Callable] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
}
