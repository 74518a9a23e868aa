"""Blocks that a singular adjacency hides from a convolution's row space, found by the direction they miss it in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from invertigo.attacks.exact.grain.blocks import Check, finished
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.colours import Colours
from invertigo.attacks.exact.grain.larger_blocks import around_each
from invertigo.attacks.exact.grain.multisets import Slots, fillings, ways
from invertigo.attacks.exact.grain.nodes import TooMany

MOST = 4_000_000
CHUNK = 1024
GRID = 4e-3
"""Directions are first compared on a grid this fine, then exactly."""
SAME = 1e-3
"""Directions this near each other are one."""
APART = 1e-4
"""Relative difference of two residuals from which they belong to different rows."""


def blocks_off_the_space(check: Check, before: Colours, budget: Budget) -> Colours:
    r"""Blocks in the row space, and blocks that miss it in one direction together with others.

    A convolution's gradient spans the rows of $\hat A H$. With $\hat A v = 0$ these miss $\sum_i v_i h_i$, so that a
    true $h_i$ with $v_i \ne 0$ is off the space, by $v_i$ times one vector that is the same for all such nodes: their
    residuals are parallel. Residuals of wrong candidates point anywhere.

    Raises: TooMany.
    """
    return finished(before, *off_the_space(check, around_each(check, before), budget))


def off_the_space(
    check: Check, centres: Iterable[tuple[int, list[Slots]]], budget: Budget
) -> tuple[list[int], list[tuple[int, ...]], list[Tensor]]:
    """Of the neighbourhoods of these centres those in the row space, and those that miss it in a common direction.

    Returns: their centres, neighbours and rows. Raises: TooMany.
    """
    mixer, null = check.parts, check.space.null.T
    if check.coarse is not None:
        mixer, null, _ = check.coarse
    chunks, starts, kept, count = [], [], [], 0
    for centre, groups in centres:
        if count + ways(groups) > MOST:
            raise TooMany(f"more than {MOST} neighbourhoods to compare, with a singular adjacency")
        for picked, sums in fillings(groups, mixer.parts(centre, torch.tensor([centre]))[0]):
            budget.spend(len(picked))
            values = check.activation(mixer.finish(centre, sums))
            kept.append((values @ null / values.norm(dim=1, keepdim=True).clamp_min(1e-300)).float())
            chunks.append((centre, picked.int()))
            starts.append(count)
            count += len(picked)
    if not count:
        return [], [], []
    residuals = torch.cat(kept).double()
    loose = check.tolerance if check.coarse is None else check.coarse[2]
    sizes = residuals.norm(dim=1)
    aside = parallel(residuals, sizes > check.space.tolerance, budget)
    found = []
    for place in ((sizes <= loose) | aside).nonzero()[:, 0].tolist():
        budget.spend()
        chunk = bisect_right(starts, place) - 1
        centre, picked = chunks[chunk]
        around = tuple(sorted(picked[place - starts[chunk]].tolist()))
        row = _row(check, centre, around)
        if bool(aside[place]) or bool(check.rows_pass(row)[0]):
            found.append((centre, around, row))
    return [centre for centre, *_ in found], [around for _, around, _ in found], [row for *_, row in found]


def parallel(
    residuals: Float[Tensor, "row column"], considered: Bool[Tensor, " row"], budget: Budget
) -> Bool[Tensor, " row"]:
    """Which of the considered residuals have a parallel one of another row (equal rows do not count)."""
    places = considered.nonzero()[:, 0]
    if len(places) == 0 or residuals.shape[1] == 0:
        return torch.zeros(len(residuals), dtype=torch.bool)
    vectors = residuals[places]
    sizes = vectors.norm(dim=1)
    units = vectors / sizes[:, None].clamp_min(1e-300)
    axis = torch.randn(units.shape[1], generator=torch.Generator().manual_seed(0), dtype=units.dtype)
    units = units * torch.where(units @ axis < 0, -1.0, 1.0)[:, None]
    found = torch.zeros(len(residuals), dtype=torch.bool)
    for shift in (0.0, 0.5):
        keys = (units[:, : min(4, units.shape[1])] / GRID + shift).floor().long()
        _, groups, counts = keys.unique(dim=0, return_inverse=True, return_counts=True)
        shared = (counts[groups] > 1).nonzero()[:, 0]
        for members in _grouped(groups[shared], shared):
            for some in members.split(CHUNK):
                budget.spend()
                near = torch.cdist(units[some], units[members]) < SAME
                other = (sizes[some, None] - sizes[members]).abs() > APART * sizes[members].max()
                found[places[some[(near & other).any(1)]]] = True
    return found


def _grouped(groups: Tensor, members: Tensor) -> Iterable[Tensor]:
    order = groups.argsort()
    _, counts = groups[order].unique_consecutive(return_counts=True)
    return members[order].split(counts.tolist())


def _row(check: Check, centre: int, around: tuple[int, ...]) -> Tensor:
    parts = check.mixer.parts(centre, torch.tensor([centre, *around]))
    return check.row(centre, parts.sum(0, keepdim=True))
