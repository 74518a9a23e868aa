"""How many nodes have each neighbourhood behind a mean embedding, and whether that is the only answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.blocks import check_of, first_blocks
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.counts import Shares
from invertigo.attacks.exact.grain.larger_blocks import next_blocks
from invertigo.attacks.exact.grain.pipeline import Evidence, kinds_of_nodes
from invertigo.attacks.exact.grain.pooled import Blocks, Pool, blocks_of_pool, pooled_colours, read_pool
from invertigo.attacks.exact.grain.singular import blocks_off_the_space

ENTER = 48
"""Neighbourhoods that join the least squares at a time."""
ROUNDS = 60
ENOUGH = 1e-6
"""Part of the gradient that may stay unexplained for the search of further neighbourhoods to end."""
STALLED = 0.9999
SIZES = (16, 32, 64)
"""Numbers of nodes that are reckoned with at first: the fewer, the fewer neighbourhoods are possible."""
EXPLAINED = 1e-4
APART = 1e-4
"""How far from the other neighbourhoods those found must be for no mixture of the others to replace them."""


class _System:
    """The equations, each kind of them scaled to count alike; a block's column is made when it is asked for.

    Beside what the gradient shows, an edge has two ends: kinds `a` and `b` see each other equally often.
    """

    def __init__(self, pool: Pool, blocks: Blocks) -> None:
        self.pool, self.blocks = pool, blocks
        self.pulled = blocks.slopes * (pool.pull / pool.slopes.norm()) * blocks.weight[:, None]
        self.hidden = blocks.hidden * (blocks.weight / pool.hidden.norm())[:, None]
        self.features = None if pool.features is None else blocks.features / pool.features.norm()
        self.pairs, self.signs, self.count = _edge_ends(blocks)
        length = self.pulled.square().sum(1) * blocks.inputs.square().sum(1) + self.hidden.square().sum(1) + 1
        length += self.signs.square().sum(1)
        self.length = (length if self.features is None else length + self.features.square().sum(1)).sqrt()

    def columns(self, chosen: Tensor) -> Float[Tensor, "equation block"]:
        """The columns of some blocks."""
        parts = [torch.einsum("bu,bc->buc", self.pulled[chosen], self.blocks.inputs[chosen]).flatten(1)]
        ends = torch.zeros(len(chosen), self.count, dtype=torch.float64)
        ends.scatter_add_(1, self.pairs[chosen], self.signs[chosen])
        parts += [self.hidden[chosen], torch.ones(len(chosen), 1, dtype=torch.float64), ends]
        if self.features is not None:
            parts.append(self.features[chosen])
        return torch.cat(parts, 1).T

    def target(self) -> Float[Tensor, " equation"]:
        """What the gradient shows."""
        pool = self.pool
        parts = [pool.slopes.flatten() / pool.slopes.norm(), pool.hidden / pool.hidden.norm()]
        parts += [torch.ones(1, dtype=torch.float64), torch.zeros(self.count, dtype=torch.float64)]
        if pool.features is not None:
            parts.append(pool.features / pool.features.norm())
        return torch.cat(parts)

    def fit(self, rest: Float[Tensor, " equation"]) -> Float[Tensor, " block"]:
        """How much each block's column, at unit length, has of the rest."""
        units, width = self.pool.slopes.shape
        first, hidden, one, ends, features = rest.split(
            [units * width, units, 1, self.count, len(rest) - units * (width + 1) - 1 - self.count]
        )
        told = ((self.blocks.inputs @ first.unflatten(0, (units, width)).T) * self.pulled).sum(1)
        told = told + self.hidden @ hidden + one + (ends[self.pairs] * self.signs).sum(1)
        return (told if self.features is None else told + self.features @ features) / self.length


def _edge_ends(blocks: Blocks) -> tuple[Tensor, Tensor, int]:
    """For each block the pairs of kinds that its edges join (padded), from which end, and the number of pairs."""
    names = {name: n for n, name in enumerate(sorted({*blocks.own, *(b for near in blocks.around for b in near)}))}
    most = max(map(len, blocks.around), default=0)
    pairs = torch.zeros(len(blocks), max(most, 1), dtype=torch.long)
    signs = torch.zeros(len(blocks), max(most, 1), dtype=torch.float64)
    seen: dict[tuple[int, int], int] = {}
    for row, (own, around) in enumerate(zip(blocks.own, blocks.around)):
        for slot, other in enumerate(around):
            if own != other:
                a, b = names[own], names[other]
                pairs[row, slot] = seen.setdefault((min(a, b), max(a, b)), len(seen))
                signs[row, slot] = 1.0 if a < b else -1.0
    return pairs, signs, max(len(seen), 1)


Columns = Callable[[Tensor], Tensor]
"""The columns (equation, block) of some blocks."""
Gains = Callable[[Tensor], Tensor]
"""What each block's column, at unit length, has of a rest."""


def count_pool(pool: Pool, blocks: Blocks, least: float, budget: Budget) -> tuple[Shares, list[int]]:
    """Shares of the nodes by non-negative least squares, and the blocks that they are of."""
    system = _System(pool, blocks)
    target = system.target()
    chosen, weights, _ = _least_squares(system.columns, system.fit, target, budget)
    chosen = chosen[weights > least / 3]
    if len(chosen) == 0:
        return Shares(weights[:0], (), 1.0, lambda: False), []
    matrix = system.columns(chosen)
    solved = torch.linalg.lstsq(matrix, target[:, None]).solution[:, 0]
    residual = float((matrix @ solved - target).norm() / target.norm())
    unique = residual < EXPLAINED and _irreplaceable(system, matrix, chosen, budget)
    return Shares(solved, tuple((place,) for place in range(len(chosen))), residual, lambda: unique), chosen.tolist()


def _least_squares(
    columns: Columns, gains: Gains, target: Tensor, budget: Budget
) -> tuple[Tensor, Tensor, Float[Tensor, " equation"]]:
    """The blocks with a weight, their weights, and the rest. Blocks enter a few at a time, the best fitting first."""
    chosen, weights, rest = torch.zeros(0, dtype=torch.long), target[:0], target
    for _ in range(ROUNDS):
        gain = gains(rest)
        budget.spend(len(gain))
        gain[chosen] = 0.0
        fresh = gain.topk(min(ENTER, len(gain))).indices
        fresh = fresh[gain[fresh] > 0]
        if float(rest.norm()) < ENOUGH * float(target.norm()) or len(fresh) == 0:
            break
        tried = torch.cat([chosen, fresh])
        matrix = columns(tried)
        scale = matrix.norm(dim=0)
        solved, _ = nnls((matrix / scale).numpy(), target.numpy(), maxiter=100 * len(tried))
        kept = torch.from_numpy(np.flatnonzero(solved > 0))
        chosen, weights = tried[kept], torch.from_numpy(solved)[kept] / scale[kept]
        before, rest = float(rest.norm()), target - matrix[:, kept] @ weights
        if float(rest.norm()) > STALLED * before and float(gain.max()) < ENOUGH:
            break
    return chosen, weights, rest


def _irreplaceable(system: _System, found: Tensor, own: Tensor, budget: Budget) -> bool:
    r"""No other blocks explain the gradient as well.

    With the columns $a$ of the blocks found independent, another answer would need others whose columns, off the span
    of $a$, add up to nothing with positive weights. There are none when zero is outside their convex hull, and then
    the point of it nearest to zero is a proof.
    """
    values = torch.linalg.svdvals(found / found.norm(dim=0))
    if float(values[-1]) < 1e-9 * float(values[0]):
        return False
    basis = torch.linalg.qr(found).Q

    def columns(chosen: Tensor) -> Tensor:
        made = system.columns(chosen)
        made = made / made.norm(dim=0)
        return torch.cat([made - basis @ (basis.T @ made), torch.ones(1, made.shape[1], dtype=made.dtype)])

    def gains(rest: Tensor) -> Tensor:
        off = rest[:-1] - basis @ (basis.T @ rest[:-1])
        told = system.fit(off) + rest[-1]
        told[own] = 0.0
        return told

    target = torch.zeros(len(found) + 1, dtype=found.dtype)
    target[-1] = 1.0
    *_, rest = _least_squares(columns, gains, target, budget)
    return float(rest[-1]) > APART and float(gains(rest).max()) < APART * float(rest[-1])


def gather_pool(
    anatomy: Anatomy, evidence: Evidence, budget: Budget, scores: Tensor, *, most_degree: int, most_nodes: int
) -> str:
    """Fill `evidence` behind a read-out of the mean embedding; why no nodes can be counted, or nothing.

    Raises: OutOfBudget, TooMany.
    """
    with budget.stage("nodes"):
        evidence.kinds, evidence.features, nodes = kinds_of_nodes(anatomy, evidence, most_degree, budget)
        evidence.levels.append(nodes)
        evidence.passed["nodes"] = len(nodes)
    pool = read_pool(anatomy, scores)
    if isinstance(pool, str):
        return pool
    for layer in range(anatomy.depth - 2):
        with budget.stage(f"blocks {layer + 1}"):
            check = check_of(anatomy, layer, evidence.levels[-1], evidence.features)
            hidden = evidence.singular and anatomy.mixes(layer + 1)
            search = blocks_off_the_space if hidden else next_blocks if layer else first_blocks
            found = search(check, evidence.levels[-1], budget)
            evidence.levels.append(found)
            evidence.passed[f"blocks {layer + 1}"] = len(found)
    before, stage = evidence.levels[-1], f"blocks {anatomy.depth - 1}"
    evidence.passed[stage] = 0
    for most in sorted({min(size, most_nodes) for size in SIZES} | {most_nodes}):
        with budget.stage(stage):
            blocks = blocks_of_pool(anatomy, pool, before, evidence.features, most, budget)
        if blocks is None or not len(blocks):
            continue
        with budget.stage("counts"):
            found_shares, members = count_pool(pool, blocks, 1 / most, budget)
        evidence.passed[stage] = len(blocks)
        if members and found_shares.residual < EXPLAINED:
            evidence.levels.append(pooled_colours(before, blocks, members))
            evidence.shares = found_shares
            break
    return ""
