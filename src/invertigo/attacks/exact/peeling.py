"""Separate the examples of a batch that a first linear layer has added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_SINGLES = 1000
SAME = 1e-3
"""Relative difference up to which two candidates of a round are one example."""
ROUNDS = 64
ROUNDING = 30.0
"""Safety factor on machine precision for a ratio of two sums."""
SIMULATION = 300.0
"""Safety factor on machine precision for derivatives simulated from a rebuilt example."""
COARSE = 1e-5
"""Machine precision above which numbers were computed more finely than they were sent, and rounded once."""
ROUNDED = 2.0
"""Safety factor on machine precision for a ratio of two rounded numbers."""
PROOF = 8.0
"""The same for derivatives simulated from an example that was rebuilt from rounded numbers."""


@dataclass(frozen=True)
class Found:
    """One rebuilt example: the layer's input (pixel,), its label, and how many times it is in the batch."""

    inputs: Tensor
    label: int
    times: int


@dataclass
class Layer:
    """What is left of the layer's gradients: `weight` (neuron, pixel), `bias` (neuron,); `peak` bounds the rounding."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __post_init__(self) -> None:
        self.peak = self.bias.abs()

    def ratios(self, accuracy: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
        """Neurons whose ratio g_W / g_b is accurate, the ratios (neuron, pixel), and their relative rounding."""
        factor = ROUNDED if self.coarse else ROUNDING
        rounding = factor * self.eps * self.peak / self.bias.abs()
        rows = (rounding < max(accuracy, 4 * factor * self.eps)).nonzero()[:, 0]
        rows = rows[rounding[rows].argsort()]
        return rows, self.weight[rows] / self.bias[rows, None], rounding[rows]

    @property
    def coarse(self) -> bool:
        """Sent in half precision."""
        return self.eps > COARSE

    def remove(self, inputs: Tensor, delta: Tensor) -> None:
        """Subtract an example with layer inputs (pixel,) and output derivative `delta` (neuron,)."""
        self.weight = self.weight - delta[:, None] * inputs
        self.bias = self.bias - delta
        self.peak = torch.maximum(self.peak, delta.abs())


def combine(weight: Tensor, bias: Tensor) -> Tensor:
    r"""The least-squares input (pixel,) behind rows of one example, $\sum_i b_i W_i / \sum_i b_i^2$."""
    return bias @ weight / bias.square().sum()


def clusters(layer: Layer, plausible: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Groups of neurons (indices) whose ratios agree to rounding and are plausible examples, largest group first.

    Ratios are compared on a few fixed random projections, which two different images do not share.
    """
    rows, ratios, rounding = layer.ratios()
    kept = plausible(ratios)
    rows, ratios, rounding = rows[kept], ratios[kept], rounding[kept]
    if len(rows) == 0:
        return []
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(ratios.shape[1], 16, generator=generator, dtype=torch.float64).to(ratios)
    seen = ratios @ axes
    size = ratios.norm(dim=1).clamp(min=1e-12)
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    groups = []
    while bool(free.any()):
        anchor = int(free.nonzero()[0, 0])
        slack = 4 * size[anchor] * (rounding + rounding[anchor])
        near = free & ((seen - seen[anchor]).abs().amax(1) <= slack)
        groups.append(rows[near])
        free &= ~near
        free[anchor] = False
    return sorted(groups, key=len, reverse=True)


def peel(
    layer: Layer,
    size: int,
    labels: list[int],
    plausible: Callable[[Tensor], Tensor],
    derivatives: Callable[[Tensor, Tensor], Tensor],
    *,
    agreeing: int = 2,
    singles: bool = False,
    scaled: bool = False,
) -> list[Found]:
    r"""Take examples off the layer's gradients one after another, each proven by simulating it alone.

    A neuron that only one remaining example activates shows that example as its ratio $g_W / g_b$. Such a candidate
    $\hat x$ is accepted with label $y$ when the derivative of its own loss, $\delta(\hat x, y)/B$, equals $g_b$ on the
    neurons that showed it (a mixture of examples fails this). Its share is then subtracted everywhere, which uncovers
    neurons it had shared with others.

    Args:
        labels: classes to try. derivatives: (candidate, pixel), (candidate,) -> (candidate, neuron) derivative of
            each candidate's own loss by the layer's output.
        scaled: $g_b$ only has to be a multiple of that derivative, as it is after clipping, of the batch or of each
            example: one factor is free, so at least two neurons are needed, and three for a proof.
        agreeing: neurons that must show a candidate. Single ones are tried after these in float64 only, where a
            match is no accident, or with `singles`: where a malicious server made most neurons silent, so that few
            show mixtures that could match by chance.

    Returns: the examples found, at most `size`; `layer` keeps what they do not explain.
    """
    found: list[Found] = []
    for _ in range(ROUNDS):
        left = size - sum(f.times for f in found)
        new = _accept(layer, size, left, labels, plausible, derivatives, agreeing, singles, scaled) if left else []
        if not new:
            return found
        for example, delta in new:
            layer.remove(example.inputs, delta)
            found.append(example)
    return found


def _accept(
    layer: Layer,
    size: int,
    left: int,
    labels: list[int],
    plausible: Callable,
    derivatives: Callable,
    agreeing: int,
    singles: bool,
    scaled: bool,
) -> list[tuple[Found, Tensor]]:
    groups = clusters(layer, plausible)
    several = [g for g in groups if len(g) >= agreeing]
    tried = singles or (layer.eps < 1e-12 and agreeing <= 2 and not scaled)
    single = [g for g in groups if len(g) < agreeing][:MAX_SINGLES] if tried else []
    accepted: list[tuple[Found, Tensor]] = []
    for batch in (several[: 8 * size], single):
        if not batch or accepted:
            continue
        inputs = torch.stack([combine(layer.weight[g], layer.bias[g]) for g in batch])
        deltas = _all_labels(inputs, labels, derivatives)
        for group, candidate, options in zip(batch, inputs, deltas):
            more = left - sum(f.times for f, _ in accepted)
            match = _match(layer, group, options, size, more, scaled) if more > 0 else None
            if match is not None:
                which, times = match
                if any(f.label == labels[which] and _same(f.inputs, candidate) for f, _ in accepted):
                    continue  # one example's neurons may fall into several groups
                found = Found(candidate, labels[which], 1 if scaled else int(times))
                accepted.append((found, options[which] * times / size))
    return accepted


def _same(one: Tensor, other: Tensor) -> bool:
    return float((one - other).norm()) <= SAME * float(one.norm())


def _all_labels(inputs: Tensor, labels: list[int], derivatives: Callable) -> Tensor:
    """(candidate, label, neuron) derivatives of every candidate with every label."""
    target = torch.tensor(labels, device=inputs.device)
    chunk = max(1, 2048 // len(labels))
    parts = []
    for some in inputs.split(chunk):
        both = derivatives(some.repeat_interleave(len(labels), 0), target.repeat(len(some)))
        parts.append(both.unflatten(0, (len(some), len(labels))))
    return torch.cat(parts)


def _match(
    layer: Layer, group: Tensor, options: Tensor, size: int, left: int, scaled: bool
) -> tuple[int, float] | None:
    """The label index and multiplicity for which the simulated derivative equals the observed one on `group`.

    `scaled`: any positive factor will do in place of a multiplicity.
    """
    observed, simulated = layer.bias[group], options[:, group]
    power = simulated.square().sum(1)
    times = size * (simulated @ observed) / power.clamp(min=1e-300)
    allowed = times > 0 if scaled else (times.round() >= 1) & (times.round() <= left)
    times = times if scaled else times.round()
    error = (simulated * times[:, None] / size - observed).norm(dim=1) / observed.norm()
    error = torch.where(allowed & (power > 0), error, torch.inf)
    best = int(error.argmin())
    rounding = float((layer.peak[group] / layer.bias[group].abs()).max()) * layer.eps
    tolerance = PROOF * rounding if layer.coarse else min(SIMULATION * rounding, 1e-3 if len(group) > 1 else 1e-4)
    return (best, float(times[best])) if float(error[best]) <= tolerance else None
