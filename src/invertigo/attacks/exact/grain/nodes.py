"""The kinds of nodes that a gradient allows: every choice from the one-hot groups whose row lies in the row space."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.subspace import Subspace
from invertigo.domains import Graphs

MOST_KINDS = 200_000
"""Partial choices kept at once; more means that the row space rules next to nothing out."""
MANY_KINDS = 4096
"""From so many on, a group's members are checked alone before they multiply the choices."""
CHUNK = 1 << 14
COARSE = 4.0
"""A restricted row space is a worse conditioned one; its tolerance is this much larger."""


class TooMany(Exception):
    """A stage has more candidates than it can go through."""


def kinds_in(domain: Graphs, space: Subspace, budget: Budget) -> Int[Tensor, "kind block"]:
    """Every kind of node (a choice in each one-hot group) whose row lies in the row space, or those of a vocabulary.

    Groups are added one after another. A row in the space is, on some of its columns, in the space restricted to
    those columns: so each partial choice is checked there at once, before the next group multiplies it.

    Raises: TooMany.
    """
    if domain.vocabulary is not None:
        known = domain.choices(domain.to_model(domain.vocabulary.double().cpu()))
        rows = domain.to_model(domain.one_hot(known).double())
        return known[space.distance(rows) < space.tolerance]
    table = _table(domain)
    # Wide groups rule out the most.
    order = sorted(range(len(domain.blocks)), key=lambda block: -domain.blocks[block])
    chosen = torch.zeros(1, 0, dtype=torch.long)
    for count, block in enumerate(order, 1):
        options = torch.arange(max(domain.blocks[block], 2))[:, None]
        if count > 1 and len(chosen) * len(options) > MANY_KINDS:
            options = options[_fits(domain, space, table, [block], options, budget)]
        budget.spend(len(chosen) * len(options))
        if len(chosen) * len(options) > MOST_KINDS:
            raise TooMany(f"more than {MOST_KINDS} kinds of nodes fit the first layer's row space")
        chosen = torch.cat([chosen.repeat_interleave(len(options), 0), options.repeat(len(chosen), 1)], 1)
        chosen = chosen[_fits(domain, space, table, order[:count], chosen, budget)]
    return chosen[:, torch.tensor(order).argsort()]


def _table(domain: Graphs) -> tuple[Float[Tensor, "member column"], ...]:
    """What the model reads of each member of each group, on the group's columns."""
    absent = domain.to_model(torch.zeros(domain.width, dtype=torch.float64))
    present = domain.to_model(torch.ones(domain.width, dtype=torch.float64))
    made = []
    for part, width in zip(domain.columns, domain.blocks):
        if width == 1:
            made.append(torch.stack([absent[part], present[part]]))
        else:
            made.append(absent[part].repeat(width, 1).diagonal_scatter(present[part]))
    return tuple(made)


def _fits(
    domain: Graphs,
    space: Subspace,
    table: tuple[Tensor, ...],
    blocks: list[int],
    chosen: Int[Tensor, "choice group"],
    budget: Budget,
) -> Tensor:
    """(choice,) whether the columns of these groups lie in the space restricted to them."""
    columns = torch.cat([torch.arange(domain.columns[b].start, domain.columns[b].stop) for b in blocks])
    whole = len(columns) == domain.width
    part = space if whole else space.restricted(columns)
    if part.full:
        return torch.ones(len(chosen), dtype=torch.bool)
    tolerance = space.tolerance if whole else COARSE * max(part.tolerance, space.tolerance)
    found = []
    for some in chosen.split(CHUNK):
        budget.spend()
        rows = torch.cat([table[block][member] for block, member in zip(blocks, some.T)], 1)
        found.append(part.distance(rows[:, columns.argsort()] if whole else rows) < tolerance)
    return torch.cat(found)
