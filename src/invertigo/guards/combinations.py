"""Which units of a batch stand alone in rows of a gradient, in two rows taken together, or after peeling others off."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SHARE = 0.9
"""A unit is alone when it makes up this part of what a reader takes it from: 20 dB above all others together."""
DIRECTIONS, WINDOW, AT_ONCE = 4, 3, 2**22


def alone(slopes: Float[Tensor, "unit row"]) -> Bool[Tensor, "unit row"]:
    """Which unit makes up a row. Nothing is too small: a ratio of floating-point numbers is as exact at 1e-30."""
    size = slopes.double().abs()
    return (size >= SHARE * size.sum(0)) & (size > 0)


def alone_in_pairs(slopes: Float[Tensor, "unit row"], epsilon: float) -> tuple[Tensor, Tensor]:
    r"""(pair, 3): unit u, rows k and l such that $g_k - r g_l$ is left to u for some number r; and (pair,) r.

    That is so when the columns of slopes are parallel but for u. Columns without u are compared by their projections
    on a few random directions, which takes O(units x rows) and a sort, whatever the rows' sizes.

    Args:
        epsilon: relative rounding of the update; what cancels leaves that much of what was subtracted.
    """
    wide = slopes.double()
    live = (wide != 0).any(0)
    index = live.nonzero()[:, 0]
    if len(index) < 2:
        return torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, dtype=torch.float64)
    # At unit length, so that no square of a tiny slope is lost.
    columns = wide[:, index] / wide[:, index].abs().amax(0)
    columns = columns / columns.norm(dim=0)
    generator = torch.Generator().manual_seed(0)
    lines = torch.randn(len(columns), DIRECTIONS, generator=generator, dtype=torch.float64).to(columns.device)
    found: list[Tensor] = []
    ratios: list[Tensor] = []
    for units in torch.arange(len(columns), device=columns.device).split(max(1, AT_ONCE // columns.shape[1])):
        for candidates in _neighbours(columns, lines, units):
            hit, ratio = _verified(columns, candidates, epsilon)
            found.append(hit)
            ratios.append(ratio)
    pairs = torch.cat(found)
    sizes = wide[:, index].norm(dim=0)
    ratio = torch.cat(ratios) * sizes[pairs[:, 1]] / sizes[pairs[:, 2]]
    pairs[:, 1:] = index[pairs[:, 1:]]
    return pairs, ratio


def _neighbours(columns: Tensor, lines: Tensor, units: Tensor):
    """Candidates (pair, 3): columns whose projections nearly agree once a unit is left out."""
    whole = columns.T @ lines
    own = columns[units]
    rest = (1 - own.square()).clamp_min(0)
    # A column of a single unit has nothing left to compare.
    rest = torch.where(rest > 1e-9, rest, torch.nan)
    seen = (whole[None] - own[:, :, None] * lines[units][:, None]) / rest.sqrt()[:, :, None]
    seen = seen * seen[..., :1].sign()
    order = seen[..., 0].argsort(dim=1)
    sorted_seen = seen.gather(1, order[..., None].expand_as(seen))
    part = (own / rest.sqrt()).abs().gather(1, order)
    for step in range(1, WINDOW + 1):
        gap = (sorted_seen[:, step:] - sorted_seen[:, :-step]).norm(dim=-1)
        size = part[:, step:].maximum(part[:, :-step])
        which, place = ((gap <= 0.5 * size) & (size > 0)).nonzero(as_tuple=True)
        yield torch.stack([units[which], order[which, place], order[which, place + step]], 1)


def _verified(columns: Tensor, candidates: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    kept, ratios = [], []
    for part in candidates.split(max(1, AT_ONCE // len(columns))):
        unit, one, other = part.T
        first, second = columns[:, one].clone(), columns[:, other].clone()
        place = torch.arange(len(part), device=columns.device)
        own, others = first[unit, place], second[unit, place]
        first[unit, place], second[unit, place] = 0.0, 0.0
        ratio = (first * second).sum(0) / second.square().sum(0).clamp_min(1e-300)
        left = (own - ratio * others).abs()
        blurred = (first - ratio * second).abs().sum(0)
        rounding = 10 * epsilon * (first.abs() + (ratio * second).abs()).sum(0)
        good = (left > 0) & (left >= SHARE * (left + blurred)) & (left * (1 - SHARE) >= rounding)
        kept.append(part[good])
        ratios.append(ratio[good])
    return torch.cat(kept) if kept else candidates[:0], torch.cat(ratios) if ratios else torch.zeros(0).double()


def peeled(slopes: Float[Tensor, "unit row"], epsilon: float) -> Bool[Tensor, " unit"]:
    """Units that can be read one after another: those alone in a row are subtracted, which leaves others alone.

    An attacker can subtract what it has proven where the layer reads the examples themselves. What is subtracted leaves
    its rounding behind, so a row serves as long as the unit left stands above that of the row's first content.
    """
    left = slopes.double().clone()
    first = left.abs().sum(0)
    known = torch.zeros(len(left), dtype=torch.bool, device=left.device)
    while True:
        fresh = alone(left) & ((1 - SHARE) * left.abs() >= 10 * epsilon * first)
        fresh = fresh.any(1) & ~known
        if not bool(fresh.any()):
            return known
        known |= fresh
        left[fresh] = 0.0
