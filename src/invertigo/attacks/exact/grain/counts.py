"""How many nodes of each colour there are: the read-out's gradient is linear in these numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import gcd

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import nnls
from torch import Tensor, nn

from invertigo.attacks.exact.grain.anatomy import Anatomy, linears

ALIKE = 1e-7
"""Relative distance under which two rows are the same to the read-out."""
SKETCH = 6
"""Equations kept for each unknown."""
CLEAR = 2.0
"""How many times what is left unexplained other counts must leave, to be ruled out."""
SECONDS_TO_WEIGH = 4e-9
"""CPU seconds of the non-negative least squares, over the third power of the number of unknowns; measured."""
KINK = 3e-6
"""A hidden unit this near zero, of the largest one, may have been rounded to either side."""


@dataclass(frozen=True)
class Shares:
    """`weights[g]` is the fraction of nodes whose row is that of group `g`; `groups[g]` lists its colours.

    `residual` is the relative part of the read-out's gradient that no choice of weights explains. `proof` finds out
    whether no other weights explain it as well, which may take longer than finding these.
    """

    weights: Float[Tensor, " group"]
    groups: tuple[tuple[int, ...], ...]
    residual: float
    proof: Callable[[], bool]

    @cached_property
    def unique(self) -> bool:
        """Whether no other weights explain the gradient as well."""
        return self.proof()


def shares(
    anatomy: Anatomy, rows: Float[Tensor, "colour column"], scores: Float[Tensor, " label"], least: float, room: int
) -> Shares:
    r"""Non-negative least squares $\min_{w \ge 0} \| \sum_g w_g J_g - \nabla_{\mathrm{readout}} L \|$.

    $J_g$ is the gradient that one node of group $g$ gives the read-out's weights when the loss's derivative by its
    logits is `scores`, which is the gradient of the last bias. Of each weight matrix a random sketch is compared.
    `least` is the smallest share there can be, that of one node in the largest graph; less is rounding. `room` is the
    number of nodes up to which other shares are ruled out.
    """
    (columns,), target, groups, group_of = equations_for(anatomy, rows, [scores])
    unknowns = max(columns.shape[1], 8)
    scale = columns.norm(dim=0).clamp_min(1e-300)
    matrix = (columns / scale).numpy()
    weights, _ = nnls(matrix, target.numpy(), maxiter=50 * unknowns)
    kept = np.flatnonzero(weights / scale.numpy() > least / 3)
    solved, *_ = np.linalg.lstsq(matrix[:, kept], target.numpy(), rcond=None)
    rest = matrix[:, kept] @ solved - target.numpy()
    own = torch.isin(group_of, group_of[kept]).numpy()
    found = torch.zeros(len(groups), dtype=torch.float64)
    found.index_add_(0, group_of[kept], torch.from_numpy(solved) / scale[torch.from_numpy(kept)])
    present = found.nonzero()[:, 0].tolist()
    return Shares(
        found[present],
        tuple(groups[g] for g in present),
        float(np.linalg.norm(rest) / max(float(target.norm()), 1e-300)),
        partial(determined, columns.numpy(), own, float(np.linalg.norm(rest)), room),
    )


def determined(columns: np.ndarray, own: np.ndarray, rest: float, room: int) -> bool:
    r"""Whether no other shares of up to `room` nodes explain the gradient as well as those found.

    Other shares need at least one node in `room` of a group that was not found. Off the span of the groups found, such
    groups add to the gradient $\sum_g w_g a_g$ with $w \ge 0$, which is at least $\sum_g w_g$ times the distance of
    zero from the convex hull of the $a_g$; a point `p` of it shows that this is no less than $\min_g p a_g / |p|$.

    Args:
        columns: (equation, unknown) the gradient that a share of one has; own: which unknowns are of groups found.
        rest: norm of what the shares found leave unexplained.
    """
    basis, values, _ = np.linalg.svd(columns[:, own], full_matrices=False)
    basis = basis[:, values > 1e-10 * values[0]] if len(values) else basis
    others = columns[:, ~own] - basis @ (basis.T @ columns[:, ~own])
    if rest <= 0 or not others.shape[1]:
        return bool(len(values)) and bool(values[-1] > 1e-9 * values[0])
    apart = np.linalg.norm(others, axis=0).min()
    if apart < room * CLEAR * rest:
        return False
    stretched = others / apart
    weights, _ = nnls(np.vstack([stretched, np.ones(others.shape[1])]), np.append(np.zeros(len(others)), 1.0))
    point = stretched @ weights
    distance = float((point @ others).min()) / max(float(np.linalg.norm(point)), 1e-300)
    return min(distance, float(values[-1])) > room * CLEAR * rest


def equations_for(
    anatomy: Anatomy, rows: Float[Tensor, "colour column"], scores: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor, list[tuple[int, ...]], Tensor]:
    """For each of the score vectors the (equation, unknown) gradients of one node; the batch's (equation,) gradient;
    the groups of colours with equal rows; and the group of each unknown (a group has several near a kink)."""
    groups = _alike(rows)
    first, pushes, group_of = _variants(anatomy.model.readout, rows[[group[0] for group in groups]])
    count = SKETCH * max(len(first) * len(scores), 8)
    made = [_equations(anatomy, first, pushes, score, count) for score in scores]
    return [columns for columns, _ in made], made[0][1], groups, group_of


def _alike(rows: Tensor) -> list[tuple[int, ...]]:
    """Colours with equal rows, together."""
    if len(rows) == 0:
        return []
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    near = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist") < ALIKE
    lead = near.int().argmax(1).tolist()
    return [tuple(c for c, first in enumerate(lead) if first == g) for g in sorted(set(lead))]


def _variants(readout: nn.Sequential, rows: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Rows, how far each is pushed in each hidden layer, and which row it was: one as it is, and one a doubtful unit.

    A unit so near the kink of a ReLU that the client's rounding decides on which side it lies may be on either.
    """
    kinked = any(isinstance(m, nn.ReLU | nn.LeakyReLU) for m in readout)
    outputs = [output.detach() for _, _, output in _passes(readout, rows)]
    found = [(-1, row, 0) for row in range(len(rows))]
    for number, output in enumerate(outputs[:-1] if kinked else []):
        near = output.abs() < KINK * output.abs().amax(1, keepdim=True)
        found += [(number, row, unit) for row, unit in near.nonzero().tolist()]
    which = torch.tensor([row for _, row, _ in found])
    pushes = [rows.new_zeros(len(found), output.shape[1]) for output in outputs]
    for place, (number, row, unit) in enumerate(found):
        if number >= 0:
            pushes[number][place, unit] = -2 * outputs[number][row, unit] or 1e-12
    return rows[which], pushes, which


def _equations(
    anatomy: Anatomy, rows: Tensor, pushes: list[Tensor], scores: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """(equation, group) sketched gradients of one node of each group, and (equation,) that of the batch."""
    generator = torch.Generator().manual_seed(0)
    side = max(int(count**0.5) + 1, 8)
    parts, whole = [], []
    for layer, inputs, deltas in _derivatives(anatomy.model.readout, rows, pushes, scores):
        gradient = anatomy.gradient(layer.weight)
        if gradient is None:
            continue
        left, right = (_directions(width, side, generator) for width in gradient.shape)
        outer = torch.einsum("ga,gb->gab", deltas @ left, inputs @ right).flatten(1)
        parts.append(outer.T)
        whole.append((left.T @ gradient @ right).flatten())
        bias = None if layer.bias is None else anatomy.gradient(layer.bias)
        if bias is not None:
            parts.append((deltas @ left).T)
            whole.append(left.T @ bias)
    # Layers differ in scale; each counts alike.
    sizes = [target.norm().clamp_min(1e-300) for target in whole]
    return (
        torch.cat([part / size for part, size in zip(parts, sizes)]),
        torch.cat([target / size for target, size in zip(whole, sizes)]),
    )


def _directions(width: int, count: int, generator: torch.Generator) -> Tensor:
    if width <= count:
        return torch.eye(width, dtype=torch.float64)
    return torch.randn(width, count, generator=generator, dtype=torch.float64) / count**0.5


def _passes(
    readout: nn.Sequential, rows: Tensor, pushes: list[Tensor] | None = None
) -> list[tuple[nn.Linear, Tensor, Tensor]]:
    """For every linear layer of the read-out its inputs (row, in) and outputs (row, out), pushed by this much."""
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def record(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if pushes is not None:
            output = output + pushes[len(seen)]
        output = output if seen else output.detach().requires_grad_()
        seen.append((layer, inputs[0], output))
        return output

    handles = [layer.register_forward_hook(record) for layer in linears(readout)]
    try:
        with torch.enable_grad():
            readout(rows)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _derivatives(
    readout: nn.Sequential, rows: Tensor, pushes: list[Tensor], scores: Tensor
) -> list[tuple[nn.Linear, Tensor, Tensor]]:
    """For every linear layer its inputs (row, in) and the loss's derivative by its outputs (row, out)."""
    seen = _passes(readout, rows, pushes)
    with torch.enable_grad():
        deltas = torch.autograd.grad((seen[-1][2] * scores).sum(), [output for _, _, output in seen])
    return [(layer, inputs.detach(), delta) for (layer, inputs, _), delta in zip(seen, deltas)]


def whole_numbers(weights: Float[Tensor, " group"], most: int, slack: float) -> Int[Tensor, " group"] | None:
    """The smallest counts with these shares: the first total up to `most` that makes all of them whole.

    A share of n nodes is a multiple of 1/n, so a wrong total leaves a rest of at least 1/n; `slack` must be less.
    """
    for total in range(1, most + 1):
        counts = weights * total
        whole = counts.round()
        near = float((counts - whole).abs().max()) <= min(slack * total, 0.4 / most)
        if near and int(whole.min()) >= 1 and int(whole.sum()) == total:
            return _reduced(whole.long())
    return None


def _reduced(counts: Tensor) -> Tensor:
    return counts // gcd(*counts.tolist())
