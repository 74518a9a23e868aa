"""The kinds of nodes that a gradient allows: every choice from the one-hot groups whose row lies in the row space."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.subspace import Subspace
from invertigo.domains import Graphs

MOST_KINDS = 200_000
"""Partial choices kept at once; more means that the row space rules next to nothing out."""
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
        known = domain.choices(domain.to_model(domain.vocabulary.double()))
        rows = domain.to_model(domain.one_hot(known).double())
        return known[space.distance(rows) < space.tolerance]
    alone = [_present(domain, space, block) for block in range(len(domain.blocks))]
    order = sorted(range(len(alone)), key=lambda block: len(alone[block]))
    chosen = torch.zeros(1, 0, dtype=torch.long)
    for count in range(1, len(order) + 1):
        options = alone[order[count - 1]]
        budget.spend(len(chosen) * len(options))
        if len(chosen) * len(options) > MOST_KINDS:
            raise TooMany(f"more than {MOST_KINDS} kinds of nodes fit the first layer's row space")
        chosen = torch.cat([chosen.repeat_interleave(len(options), 0), options.repeat(len(chosen))[:, None]], 1)
        chosen = chosen[_fits(domain, space, order[:count], chosen)]
    back = torch.tensor(order).argsort()
    return chosen[:, back]


def _present(domain: Graphs, space: Subspace, block: int) -> Int[Tensor, " option"]:
    """The members of one group that can occur at all."""
    options = torch.arange(max(domain.blocks[block], 2))
    return options[_fits(domain, space, [block], options[:, None])]


def _fits(domain: Graphs, space: Subspace, blocks: list[int], chosen: Tensor) -> Tensor:
    """(choice,) whether the columns of these groups lie in the space restricted to them."""
    columns = torch.cat([torch.arange(domain.width)[domain.columns[block]] for block in sorted(blocks)])
    whole = torch.zeros(len(chosen), len(domain.blocks), dtype=torch.long)
    whole[:, blocks] = chosen
    rows = domain.to_model(domain.one_hot(whole).double())[:, columns]
    part = space if len(columns) == domain.width else space.restricted(columns)
    if part.full:
        return torch.ones(len(chosen), dtype=torch.bool)
    tolerance = space.tolerance if part is space else COARSE * max(part.tolerance, space.tolerance)
    return part.distance(rows) < tolerance
