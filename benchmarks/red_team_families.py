"""How the red team crafts rows, and in which combinations it reads them. Rows, biases and the head's columns are given
as they are in the honest model of the round; `seen` (example, feature) are features of public data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

BATCH = 64


@dataclass
class Rows:
    """What a server may choose: weights (row, feature), biases and the head's columns (class, row)."""

    weight: Tensor
    bias: Tensor
    head: Tensor
    read: list[tuple[list[int], list[float]]]
    """Combinations of rows that are read beside every single row."""


Craft = Callable[[Rows, Tensor, torch.Generator, int], Rows]


def bins(rows: Rows, seen: Tensor, generator: torch.Generator, which: Tensor, size: Tensor, alike: bool = True) -> Rows:
    """Rows `which` measure one number and sort examples into bins; `size` (row,) is how large each is written."""
    direction = torch.randn(rows.weight.shape[1], generator=generator, dtype=torch.float64)
    direction = direction / direction.norm()
    measured = seen @ direction
    edges = measured.quantile(torch.linspace(0.002, 0.995, len(which), dtype=torch.float64))
    rows.weight[which] = size[:, None] * direction
    rows.bias[which] = -size * edges
    column = torch.randn(len(rows.head), 1, generator=generator, dtype=torch.float64)
    if alike:
        rows.head[:, which] = column * size * rows.head.std() / size.mean()
    order = which.tolist()
    # The slope of row k is the head's column, so rows are divided by it before they are subtracted.
    weights = (1 / (size / size.mean())).tolist()
    rows.read += [([a, b], [weights[i], -weights[i + 1]]) for i, (a, b) in enumerate(pairwise(order))]
    return rows


def every(rows: Rows) -> Tensor:
    return torch.arange(len(rows.weight))


def imprint(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    return bins(rows, seen, generator, every(rows), torch.ones(len(rows.weight), dtype=torch.float64))


def imprint_small(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """A full imprint at a ten-millionth beside as many honest rows (decoys)."""
    which = torch.randperm(len(rows.weight), generator=generator)[: len(rows.weight) // 2]
    return bins(rows, seen, generator, which, torch.full((len(which),), 1e-7, dtype=torch.float64))


def imprint_scaled(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """Every row at a size of its own, over eight decades."""
    size = 10 ** (8 * torch.rand(len(rows.weight), generator=generator, dtype=torch.float64) - 7)
    return bins(rows, seen, generator, every(rows)[torch.randperm(len(size), generator=generator)], size)


def imprint_tilted(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """Thresholds in the weights, along the mean feature; biases stay honest, and noise hides the direction."""
    honest = rows.bias.clone()
    rows = imprint(rows, seen, generator, turn)
    return tilt(rows, seen, honest)


def tilt(rows: Rows, seen: Tensor, honest: Tensor) -> Rows:
    mean = seen.mean(0)
    missing = rows.bias - honest
    rows.weight += missing[:, None] * mean / mean.square().sum()
    rows.bias = honest.clone()
    return rows


def quantile(rows: Rows, seen: Tensor, which: Tensor, rate: float) -> Rows:
    """Honest directions, with biases that let `rate` of the examples through."""
    outputs = seen @ rows.weight[which].T
    rows.bias[which] = -outputs.quantile(1 - rate, dim=0)
    return rows


def quantile_all(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    return quantile(rows, seen, every(rows), 1 / BATCH)


def quantile_tilted(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """The issue's bypass: the threshold is carried in the weights."""
    honest = rows.bias.clone()
    return tilt(quantile_all(rows, seen, generator, turn), seen, honest)


def quantile_few_small(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """A quarter of the rows, a millionth of the honest ones' size, and decoys that are honest."""
    which = torch.randperm(len(rows.weight), generator=generator)[: len(rows.weight) // 4]
    rows = quantile(rows, seen, which, 1 / BATCH)
    rows.weight[which] *= 1e-6
    rows.bias[which] *= 1e-6
    return rows


def below_tolerance(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """So few rows that what leaks stays under what is refused."""
    which = torch.randperm(len(rows.weight), generator=generator)[:14]
    return quantile(rows, seen, which, 1 / BATCH)


def split_over_rounds(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """A few bins each round, elsewhere in the batch each time, all other rows honest."""
    steady = torch.Generator().manual_seed(5)
    which = torch.randperm(len(rows.weight), generator=steady).roll(-12 * turn)[:12]
    direction = torch.randn(rows.weight.shape[1], generator=steady, dtype=torch.float64)
    direction = direction * rows.weight.norm(dim=1).mean() / direction.norm()
    measured = seen @ direction
    start = 0.02 + 0.12 * (turn % 8)
    edges = measured.quantile(torch.linspace(start, start + 0.12, 12, dtype=torch.float64))
    rows.weight[which], rows.bias[which] = direction.expand(12, -1).clone(), -edges
    rows.head[:, which] = rows.head[:, which[:1]]
    order = which.tolist()
    rows.read += [([a, b], [1.0, -1.0]) for a, b in pairwise(order)]
    return rows


def trap(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """Jittered trap weights: negative sums a little larger than positive ones, balanced only on the average."""
    size = rows.weight.abs()
    sign = torch.where(torch.rand(size.shape, generator=generator, dtype=torch.float64) < 0.5, -1.0, 1.0)
    below, above = (size * (sign < 0)).sum(1, keepdim=True), (size * (sign > 0)).sum(1, keepdim=True)
    rows.weight = torch.where(sign < 0, -size, 0.93 * size * below / above)
    return rows


def decoy_columns(rank: int) -> Craft:
    """Bins of `rank` rows each, whose columns in the head are random within as many dimensions, so that no two rows
    have parallel slopes. The rows of a bin are combined to one column before bins are subtracted: 2 `rank` rows a time.
    """

    def craft(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
        groups = len(rows.weight) // rank
        direction = torch.randn(rows.weight.shape[1], generator=generator, dtype=torch.float64)
        direction = direction * rows.weight.norm(dim=1).mean() / direction.norm()
        edges = (seen @ direction).quantile(torch.linspace(0.005, 0.995, groups, dtype=torch.float64))
        basis = torch.randn(len(rows.head), rank, generator=generator, dtype=torch.float64) * rows.head.std()
        wanted = torch.randn(rank, generator=generator, dtype=torch.float64)
        order, parts = torch.randperm(groups * rank, generator=generator).reshape(groups, rank), []
        for members, edge in zip(order, edges):
            columns = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64))[0]
            rows.weight[members] = direction.expand(rank, -1).clone()
            rows.bias[members] = -edge.expand(rank).clone()
            rows.head[:, members] = basis @ columns
            parts.append((members.tolist(), torch.linalg.solve(columns, wanted).tolist()))
        rows.read += [(a + b, [*x, *(-v for v in y)]) for (a, x), (b, y) in pairwise(parts)]
        return rows

    return craft


def pairs_of_two(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """Rows that fire for about two examples, twice each with other columns: the quotient of two slopes is searched for
    by the reader, here granted to it.
    """
    half = len(rows.weight) // 2
    rows.weight[half : 2 * half] = rows.weight[:half]
    rows = quantile(rows, seen, every(rows), 2 / BATCH)
    rows.read += [([k, k + half], [1.0, -r]) for k in range(half) for r in (0.5, 1.0, 2.0)]
    return rows


def learned(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """Weights found by gradient descent: each row is to fire for one in a batch, and to stay near the honest one in
    size, sign balance, bias and direction, which are the guard's own statistics.
    """
    weight, bias = rows.weight.clone().requires_grad_(), rows.bias.clone().requires_grad_()
    optimiser = torch.optim.Adam([weight, bias], lr=0.01 * float(rows.weight.std()) / 0.07)
    for _ in range(150):
        batch = seen[torch.randperm(len(seen), generator=generator)[:BATCH]]
        outputs = batch @ weight.T + bias
        fires = torch.sigmoid(12 * outputs / outputs.detach().std(0).clamp_min(1e-9))
        balance = torch.tanh(20 * weight / rows.weight.std()).mean(1).square().mean()
        near = (weight - rows.weight).square().mean() / rows.weight.square().mean()
        loss = (fires.sum(0) - 1).square().mean() + 2 * near + 5 * balance + 50 * bias.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    rows.weight, rows.bias = weight.detach(), bias.detach()
    return rows


def soliton(rows: Rows, seen: Tensor, generator: torch.Generator, turn: int) -> Rows:
    """Soliton-Data at the honest rows' own weights."""
    from invertigo.attacks.active.soliton import soliton_degrees

    degrees = soliton_degrees(len(rows.weight), BATCH, 0.05, 0.4, generator).clamp_max(BATCH - 1)
    ordered = (seen[torch.randperm(len(seen), generator=generator)[:BATCH]] @ rows.weight.T).sort(0, descending=True)[0]
    rows.bias = -(ordered.gather(0, degrees[None] - 1) + ordered.gather(0, degrees[None]))[0] / 2
    return rows


@dataclass(frozen=True)
class Family:
    """`after` marks what was made once the guard's rules were fixed. Decoy columns were, and passed with up to 34 of 64
    examples (behind leaky ReLU with 24); the reading of groups, and of gates, was added in their view.
    """

    name: str
    stage: str
    craft: Craft
    after: bool = False


FAMILIES = (
    Family("imprint", "F.linear", imprint),
    Family("imprint at 1e-7, decoys", "F.linear", imprint_small),
    Family("imprint, rows over 8 decades", "F.linear", imprint_scaled),
    Family("imprint, tilted weights", "F.linear", imprint_tilted),
    Family("imprint behind a convolution", "convolution", imprint_small),
    Family("imprint behind an embedding", "embedding", imprint_small),
    Family("imprint behind attention", "attention", imprint_small),
    Family("imprint, x @ w.T", "product", imprint_small),
    Family("imprint, autograd.Function", "autograd.Function", imprint_small),
    Family("imprint over two layers", "two layers", imprint_scaled),
    Family("quantile biases", "F.linear", quantile_all),
    Family("quantiles in tilted weights", "F.linear", quantile_tilted),
    Family("quantiles, few rows at 1e-6", "F.linear", quantile_few_small),
    Family("below the tolerance", "F.linear", below_tolerance),
    Family("split over rounds", "F.linear", split_over_rounds),
    Family("trap weights, jittered", "F.linear", trap),
    Family("soliton-data", "F.linear", soliton, after=True),
    Family("decoy columns, 4 rows a reading", "F.linear", decoy_columns(2)),
    Family("decoy columns, 8 rows a reading", "F.linear", decoy_columns(4)),
    Family("soliton behind a convolution", "convolution", soliton, after=True),
    Family("decoy columns, leaky ReLU", "leaky", decoy_columns(2)),
    Family("imprint, leaky ReLU", "leaky", imprint_scaled, after=True),
    Family("rows of two examples", "F.linear", pairs_of_two, after=True),
    Family("learned against the rules", "F.linear", learned, after=True),
)
