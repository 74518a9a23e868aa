"""One example's gradient against all others'."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from invertigo.guards.conformal import conformal
from invertigo.guards.nulls import predictive_p
from invertigo.guards.published import SEER
from invertigo.guards.registry import register
from invertigo.guards.signals import signals_of
from invertigo.types import INVERTIGO, Finding, Gate, History, LayerSignals, Local, Paper, Received

EPSILON = 1e-6
CHUNK = 8
"""Examples whose weight gradients are held at once."""
_KNOWN: WeakKeyDictionary[LayerSignals, Tensor] = WeakKeyDictionary()
"""Norms that one guard has computed and another needs; they go when the signals go."""
ACTION = "Do not send it as it is: one example makes up the gradient. Skip the round, or clip each example's gradient."


@register
@dataclass(frozen=True, kw_only=True)
class DSNR:
    r"""$\max_W \max_i \|g_i(W)\| / (\sum_j \|g_j(W)\| - \max_i \|g_i(W)\| + 10^{-6})$ over weights of linear and
    convolutional layers, $g_i(W)$ being example i's gradient, as published.

    No threshold was published, and honest models reach any value on small batches, so it is compared with the client's
    own clean rounds (conformal p-value).

    Source: Garov et al. 2024, released code. With BatchNorm in training mode, the part of the batch gradient that flows
    through an example's own outputs is taken for that example's gradient, as there.
    """

    name: ClassVar[str] = "d_snr"
    paper: ClassVar[Paper] = SEER
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = frozenset({"probe"})

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        found = strongest(received, local)
        if found is None:
            return ()
        layer, value, example, count = found
        message = f"D-SNR {value:.3g} in '{layer}': example {example} of {count} weighs that many times all others."
        held = Finding(self.name, self.gate, "malice", value, None, message, ACTION, layer=layer, of=count)
        return (conformal(held, history),)


@register
@dataclass(frozen=True, kw_only=True)
class Concentration:
    r"""$\log((B - 1) \cdot \text{D-SNR})$ against its values in the client's clean rounds (predictive t-test).

    D-SNR falls as 1/(B-1) and rises as training converges; times B-1, and against the client's own past, it can be
    compared between batch sizes and stages.

    Args:
        floor: deviation of the logarithm that is allowed for before there are rounds to learn it from.
    """

    name: ClassVar[str] = "concentration"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = frozenset({"probe"})

    floor: float = 0.7

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        found = strongest(received, local)
        if found is None or found[3] < 2:
            return ()
        layer, value, example, count = found
        figure = math.log(max(value * (count - 1), 1e-12))
        past = history.clean(self.name)
        p = predictive_p(past, figure, floor=self.floor) if past else None
        message = (
            f"Example {example} weighs {math.exp(figure):.3g} times the mean of the {count - 1} others in '{layer}'."
        )
        return (Finding(self.name, self.gate, "malice", figure, p, message, ACTION, layer=layer, of=count),)


def strongest(received: Received, local: Local) -> tuple[str, float, int, int] | None:
    """Layer, D-SNR, example and number of examples where the D-SNR is largest."""
    best: tuple[str, float, int, int] | None = None
    for name, signal in signals_of(received, local).layers.items():
        if not measurable(signal.module):
            continue
        norms = example_norms(signal)
        top, index = norms.max(0)
        value = float(top / (norms.sum() - top + EPSILON))
        if best is None or value > best[1]:
            best = name, value, int(index), len(norms)
    return best


def example_norms(signal: LayerSignals) -> Tensor:
    r"""(example,) $\|\sum_t \delta_{it} a_{it}^T\|$, the norm of each example's gradient of the layer's weight."""
    if signal not in _KNOWN:
        if signal.slopes.ndim == 2 and signal.inputs.ndim == 2:
            _KNOWN[signal] = signal.slopes.norm(dim=1) * signal.inputs.norm(dim=1)
        else:
            parts = zip(signal.slopes.split(CHUNK), signal.inputs.split(CHUNK))
            _KNOWN[signal] = torch.cat([_norms(signal.module, slopes, inputs) for slopes, inputs in parts])
    return _KNOWN[signal]


def measurable(module: nn.Module) -> bool:
    """Linear layers and ordinary two-dimensional convolutions."""
    plain = isinstance(module, nn.Conv2d) and isinstance(module.padding, tuple) and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear) or plain


def _norms(module: nn.Module, slopes: Tensor, inputs: Tensor) -> Tensor:
    """By the Gram matrices of positions where there are fewer of them than weights, else by the gradient itself."""
    groups = getattr(module, "groups", 1)
    slopes, inputs = _positions(module, slopes, inputs)
    if groups > 1:
        slopes, inputs = (t.unflatten(1, (groups, -1)).flatten(0, 1) for t in (slopes, inputs))
    features, positions = inputs.shape[1:]
    if positions * (features + slopes.shape[1]) < features * slopes.shape[1]:
        squares = ((slopes.mT @ slopes) * (inputs.mT @ inputs)).sum((1, 2))
    else:
        squares = (slopes @ inputs.mT).square().sum((1, 2))
    return squares.clamp_min(0).unflatten(0, (-1, groups)).sum(1).sqrt()


def _positions(module: nn.Module, slopes: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(example, row, position) slopes and (example, feature, position) inputs."""
    if isinstance(module, nn.Linear):
        return slopes.flatten(1, -2).mT, inputs.flatten(1, -2).mT
    sides = (module.kernel_size, module.dilation, module.padding, module.stride)
    return slopes.flatten(2), unfold(inputs, *sides)  # type: ignore[arg-type]
