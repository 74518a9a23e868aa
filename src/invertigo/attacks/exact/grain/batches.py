"""Several graphs in one gradient: which neighbourhood belongs to which graph, from how strongly each one pulls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.counts import equations_for

LARGEST_COUNT = 8
MOST_PULLS = 14
FIRST = 3
"""Pulls that a choice must explain before all others are looked at."""
FAINT = 3e-3
"""A pull this much weaker than the strongest one is rounding."""
SAME = 2e-3
"""Relative distance up to which two pulls are one, or a sum of whole multiples fits."""


@dataclass(frozen=True)
class Pulls:
    r"""`vectors[g]` is $\sum_b m_{gb}\, \kappa_b$: group `g` has $m_{gb}$ nodes in graph `b`.

    A graph's own pull $\kappa_b$ is the loss's derivative by its logits over the numbers of nodes and of graphs.
    """

    vectors: Float[Tensor, "group label"]
    groups: tuple[tuple[int, ...], ...]
    residual: float
    unique: bool


@dataclass(frozen=True)
class Division:
    """`counts[g, b]` nodes of group `g` in graph `b`, whose label is `labels[b]`."""

    counts: Int[Tensor, "group graph"]
    labels: tuple[int, ...]


def pulls(anatomy: Anatomy, rows: Float[Tensor, "colour column"], classes: int) -> Pulls:
    """Least squares for the vector by which each group pulls at the logits; signs differ between graphs."""
    units = torch.eye(classes, dtype=torch.float64)
    parts, target, groups, group_of = equations_for(anatomy, rows, list(units))
    matrix = torch.stack(parts, 2).flatten(1)
    scale = matrix.norm(dim=0).clamp_min(1e-300)
    scaled = (matrix / scale).numpy()
    solved, _, rank, _ = np.linalg.lstsq(scaled, target.numpy(), rcond=1e-10)
    rest = float(np.linalg.norm(scaled @ solved - target.numpy())) / max(float(target.norm()), 1e-300)
    each = (torch.from_numpy(solved) / scale).unflatten(0, (-1, classes))
    found = each.new_zeros(len(groups), classes).index_add_(0, group_of, each)
    strong = found.norm(dim=1) > FAINT * found.norm(dim=1).max()
    kept = strong.nonzero()[:, 0].tolist()
    return Pulls(found[kept], tuple(groups[g] for g in kept), rest, int(rank) == scaled.shape[1])


def divisions(found: Pulls, graphs: int, budget: Budget) -> list[Division]:
    """Ways to explain all pulls by so many graphs, fewest nodes first.

    Most graphs have a neighbourhood that occurs once and nowhere else, which shows the graph's own pull; so sets of
    observed pulls are tried until every other pull is a sum of whole multiples of them.
    """
    distinct = _distinct(found.vectors)[:MOST_PULLS]
    grid = torch.cartesian_prod(*[torch.arange(LARGEST_COUNT + 1)] * graphs).reshape(-1, graphs)
    grid = grid[grid.sum(1) > 0]
    made: list[tuple[int, Division]] = []
    for chosen in combinations(range(len(distinct)), graphs):
        budget.spend(len(grid))
        own = distinct[list(chosen)]
        sums, slack = grid.double() @ own, SAME * own.norm(dim=1).min()
        # Most choices fail at the first few pulls that were not chosen.
        others = distinct[[place for place in range(len(distinct)) if place not in chosen][:FIRST]]
        if len(others) and not bool((torch.cdist(others, sums) <= slack).any(1).all()):
            continue
        misfit = torch.cdist(found.vectors, sums)
        fits = misfit <= slack
        if not bool(fits.any(1).all()):
            continue
        # Of the multiples that fit, the smallest.
        size = torch.where(fits, grid.sum(1).double() + misfit, torch.inf)
        counts = grid[size.argmin(1)]
        if bool((counts.sum(0) > 0).all()):
            made.append((int(counts.sum()), Division(counts, tuple(own.argmin(1).tolist()))))
    return [division for _, division in sorted(made, key=lambda pair: pair[0])]


def _distinct(vectors: Float[Tensor, "group label"]) -> Float[Tensor, "distinct label"]:
    """The different vectors, those that occur most often first."""
    near = torch.cdist(vectors, vectors) <= SAME * vectors.norm(dim=1, keepdim=True)
    lead = near.int().argmax(1)
    firsts, counts = lead.unique(return_counts=True)
    return vectors[firsts[counts.argsort(descending=True, stable=True)]]


def graph_counts(found: Pulls, division: Division, graph: int) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
    """Counts and groups of one graph of the batch."""
    column = division.counts[:, graph]
    present: Sequence[int] = column.nonzero()[:, 0].tolist()
    return [int(column[g]) for g in present], tuple(found.groups[g] for g in present)
