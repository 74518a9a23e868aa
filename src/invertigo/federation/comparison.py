"""Two updates side by side, layer by layer: gap, direction, scale, and how much of it rounding explains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

ROUNDING = {torch.float64: 1e-11, torch.float32: 2e-5}
"""Relative difference of two ways to compute one gradient, by dtype of the computation; others: 20 units."""
MARGIN = 10.0
"""How many times the measured noise of summation a gap may be."""


@dataclass(frozen=True)
class LayerGap:
    """How far one layer of the replayed update is from the received one.

    `relative_gap` is in units of the received layer's norm; `scale` is the best factor on the replayed layer, and
    `cosine` the cosine between the two. `unexplained` is the share of the gap beyond what rounding may cause.
    """

    name: str
    relative_gap: float
    cosine: float
    scale: float
    unexplained: float = 0.0


def compare(received: Tensors, replayed: Tensors, allowed: Mapping[str, float]) -> tuple[LayerGap, ...]:
    """Each layer's gap; `allowed[layer]` is the norm of the difference that rounding may cause."""
    return tuple(_layer(name, seen, replayed[name], allowed[name]) for name, seen in received.items())


def overall(received: Tensors, replayed: Tensors) -> tuple[float, float, float]:
    """Relative gap, cosine and best scale over all layers together."""
    return _measures(flat(received), flat(replayed))


def flat(tensors: Tensors) -> Tensor:
    """(entry,) of all tensors in float64, in the order of their names in the mapping."""
    return torch.cat([t.detach().double().flatten() for t in tensors.values()])


def rounding_of(tensor: Tensor) -> tuple[float, float]:
    """Relative and absolute rounding of the values as they were sent.

    Values that all are numbers of half precision were sent in half precision, whatever they are stored in now.
    """
    kind = next(
        (k for k in (torch.bfloat16, torch.float16) if torch.equal(tensor.to(k).to(tensor.dtype), tensor)), tensor.dtype
    )
    info = torch.finfo(kind)
    return info.eps, info.smallest_normal * info.eps


def allowance(received: Tensors, replayed: Tensors, noise: Tensors | None, carried: float) -> dict[str, float]:
    """Norm of the difference that rounding may cause in each layer.

    Rounding of the message, of the computation (`noise`: the replay less its repetition in double precision, where
    it was made; else a fixed share), and `carried`: what the message lost before it was one, of the whole norm.
    """
    total = flat(received).norm().item()
    found = {}
    for name, seen in received.items():
        relative, least = rounding_of(seen)
        own = replayed[name]
        sent = (relative * own.double().abs() + least).norm().item() if own.numel() else 0.0
        computed = ROUNDING.get(own.dtype, 20 * torch.finfo(own.dtype).eps) * own.double().norm().item()
        if noise is not None:
            computed += MARGIN * noise[name].double().norm().item()
        share = (own.numel() / max(1, sum(t.numel() for t in received.values()))) ** 0.5
        found[name] = sent + computed + carried * total * max(share, 1e-3)
    return found


def _layer(name: str, seen: Tensor, own: Tensor, allowed: float) -> LayerGap:
    a, b = seen.detach().double().flatten(), own.detach().double().flatten()
    gap, cosine, scale = _measures(a, b)
    miss = (a - b).norm().item()
    unexplained = max(0.0, 1 - allowed / miss) if miss > 0 else 0.0
    return LayerGap(name, gap, cosine, scale, unexplained if math.isfinite(miss) else 1.0)


def _measures(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    """Of received `a` and replayed `b`: |a - b| / |a|, cosine, <a, b> / <b, b>. Two empty updates are equal."""
    size, own, inner = a.norm().item(), b.norm().item(), (a @ b).item()
    miss = (a - b).norm().item()
    gap = miss / size if size else float(miss > 0)
    if not size or not own:
        return gap, float(size == own), float(size == own)
    return gap, inner / (size * own), inner / own**2
