"""How many neighbours of each colour a node has, solved for where the layer is linear in these numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float, Int
from scipy.linalg import qr
from torch import Tensor

from invertigo.attacks.exact.grain.blocks import Check
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.multisets import CHUNK, Slots

WHOLE = 0.05
"""How far from a whole number a count may be by rounding."""
MOST = 30_000_000


def countings(check: Check, centre: int, groups: Sequence[Slots], budget: Budget) -> Int[Tensor, "row slot"] | None:
    r"""The colours of the neighbours of `centre`, a row for each way that fits; None where they are too many to try.

    Without an activation a row is $r_0 + \sum_j n_j r_j$ with $n_j$ neighbours of colour $j$, and it lies in the row
    space. So $\sum_j n_j P r_j = -P r_0$ with the projection $P$ off the space, and the counts of a group add up to its
    slots. What these equations leave open, whole numbers are tried for, in as few places as there are directions.

    Raises: OutOfBudget.
    """
    colours = torch.cat([group.options for group in groups])
    of_group = torch.cat([torch.full((len(group.options),), number) for number, group in enumerate(groups)])
    slots = torch.tensor([group.count for group in groups])
    start, open_ = _solutions(check, centre, colours, of_group, slots.double())
    places = qr(open_.numpy().T, mode="r", pivoting=True)[-1][: open_.shape[1]].tolist() if open_.shape[1] else []
    sizes = [int(slots[of_group[place]]) + 1 for place in places]
    if prod(sizes) > MOST:
        return None
    spread = torch.linalg.solve(open_[places].T, open_.T) if sizes else open_.T
    found = []
    for first in range(0, prod(sizes), CHUNK):
        left = torch.arange(first, min(first + CHUNK, prod(sizes)))
        budget.spend(len(left))
        counts = start + (_digits(left, sizes) - start[places]) @ spread
        whole = counts.round()
        near = ((counts - whole).abs() <= WHOLE) & (whole >= 0)
        found.append(whole[near.all(1)].long())
    fits = torch.cat(found)
    sums = torch.zeros(len(fits), len(groups), dtype=torch.long).index_add_(1, of_group, fits)
    fits = fits[(sums == slots).all(1)].unique(dim=0)
    return colours.expand(len(fits), -1).repeat_interleave(fits.flatten()).reshape(len(fits), int(slots.sum()))


def _solutions(
    check: Check, centre: int, colours: Tensor, of_group: Tensor, slots: Tensor
) -> tuple[Float[Tensor, " unknown"], Float[Tensor, "unknown open"]]:
    """One solution of the equations, and the directions that they do not see."""
    mixer, space = check.mixer, check.space
    parts = mixer.parts(centre, colours)
    origin = check.row(centre, mixer.parts(centre, torch.tensor([centre])))
    steps = check.row(centre, parts) - check.row(centre, torch.zeros_like(parts[:1]))
    off = torch.cat([origin, steps])
    off = off - (off @ space.basis.T) @ space.basis
    scale = float(steps.norm(dim=1).max())
    members = (of_group == torch.arange(len(slots))[:, None]).double()
    equations, target = torch.cat([off[1:].T / scale, members]), torch.cat([-off[0] / scale, slots])
    left, values, right = torch.linalg.svd(equations, full_matrices=False)
    # A direction is seen when the noise of the row space moves the count along it by less than `WHOLE`.
    noise = check.tolerance * (float(origin.norm()) / scale + float(slots.sum()))
    seen = values > noise / WHOLE
    solution = ((target @ left[:, seen]) / values[seen]) @ right[seen]
    return solution, right[~seen].T


def _digits(numbers: Int[Tensor, " row"], sizes: Sequence[int]) -> Float[Tensor, "row place"]:
    """Each number written with these many values at each place."""
    made = []
    for size in sizes:
        made.append(numbers % size)
        numbers = numbers // size
    return torch.stack(made, 1).double() if made else torch.zeros(len(numbers), 0, dtype=torch.float64)
