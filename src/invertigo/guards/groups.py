"""Rows that fire together: what a reader gets who combines as many of them as it takes to give them one slope."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LOW, SEEN, MOST = 1e-5, 1e-3, 4096
"""Singular value, as a part of the largest, that counts as zero; least part of a reading that is the unit's; groups."""


def alone_in_groups(
    slopes: Float[Tensor, "unit row"], gates: Bool[Tensor, "unit row"] | None = None
) -> tuple[Bool[Tensor, " unit"], Bool[Tensor, " row"]]:
    r"""Units that tell two groups of rows apart and stand alone in a combination of both, and these rows.

    A group is all rows that fire for the same units. Its slopes are $u_i \cdot v_k$ for the columns $v_k$ by which the
    next layer reads the rows, so no two need be parallel; but with more rows than $v$ has dimensions, the group can be
    combined to any slope, by the columns alone. Two groups that differ in one unit, combined to the same slope, differ
    in that unit alone. Only groups of fewer rows than units are looked at: larger ones can always be combined so, but
    by slopes that an attacker does not know.

    Where a row is never quite silent (leaky ReLU), `gates` say for which units its output is positive.
    """
    wide = slopes.double()
    firing = wide != 0
    units, rows = _read(wide, firing)
    if gates is None:
        return units, rows
    more = _read(wide, gates & firing.any(0))
    return units | more[0], rows | more[1]


def _read(wide: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    units = torch.zeros(len(wide), dtype=torch.bool, device=wide.device)
    rows = torch.zeros(wide.shape[1], dtype=torch.bool, device=wide.device)
    for unit, smaller, larger in _neighbours(support):
        members = torch.cat([smaller, larger])
        columns = wide[:, members] / wide[:, members].abs().amax(0).clamp_min(1e-300)
        others = (columns != 0).any(1)
        others[unit] = False
        if len(members) < 3 or int(others.sum()) < len(members):
            continue
        _, sizes, right = torch.linalg.svd(columns[others], full_matrices=True)
        free = right[int((sizes > LOW * sizes[0]).sum()) :]
        if len(free) and float((free @ columns[unit]).norm()) > SEEN * float(columns[unit].norm()):
            units[unit] = True
            rows[members] = True
    return units, rows


def _neighbours(support: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(unit, rows without it, rows with it) for groups that agree in all other units."""
    generator = torch.Generator().manual_seed(0)
    marks = torch.randint(2**62, (len(support),), generator=generator).to(support.device)
    # Whole numbers wrap around alike in any order, so rows of the same units have the same sum.
    sums = (support.T.long() * marks).sum(1)
    known, group = sums.unique(return_inverse=True)
    several = group.bincount()
    first = torch.full((len(known),), len(group), device=support.device).scatter_reduce(
        0, group, torch.arange(len(group), device=support.device), "amin"
    )
    wanted = torch.where(support.T[first], 0, known[:, None] + marks)
    place = torch.searchsorted(known, wanted).clamp_max(len(known) - 1)
    hit = (known[place] == wanted) & ~support.T[first] & support.any(0)[first][:, None]
    hit &= several[:, None] + several[place] > 2
    for smaller, unit in hit.nonzero()[:MOST].tolist():
        larger = int(place[smaller, unit])
        yield unit, (group == smaller).nonzero()[:, 0], (group == larger).nonzero()[:, 0]
