"""From gradients to counts: nodes, blocks of growing size, and how many nodes have each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.blocks import check_of, first_blocks
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.colours import Colours
from invertigo.attacks.exact.grain.counts import SECONDS_TO_WEIGH, Shares, shares
from invertigo.attacks.exact.grain.larger_blocks import next_blocks
from invertigo.attacks.exact.grain.nodes import kinds_in
from invertigo.attacks.exact.grain.singular import blocks_off_the_space
from invertigo.attacks.exact.grain.told_blocks import told_blocks
from invertigo.attacks.exact.grain.vertices import MANY, corner_kinds
from invertigo.attacks.subspace import Subspace
from invertigo.domains import Graphs

MOST_SPLITS = 256
"""Ways to share counts among colours that look alike to the gradient."""


@dataclass
class Evidence:
    """What is known so far; a stage that fails leaves the earlier ones.

    `likely` keeps the kinds of nodes (kind, block) to which the search is confined; `singular` looks for blocks off the
    row spaces of convolutions as well; `distinct` takes no two neighbours of a node for equal; `doubting` takes no row
    in the space for proof of whose it is, see `told_blocks`; `all_kinds` tells that no kind of node in the row space
    was left out, and `shown` that the row space is that of the features themselves; `allowed` are the kinds found in
    it. `most_degree` and `most_nodes` are the largest that were tried.
    """

    domain: Graphs
    likely: Callable[[Tensor], Tensor] | None = None
    singular: bool = False
    distinct: bool = False
    doubting: bool = False
    all_kinds: bool = True
    shown: bool = True
    most_degree: int = 0
    most_nodes: int = 0
    allowed: Int[Tensor, "kind block"] | None = None
    kinds: Int[Tensor, "kind block"] | None = None
    features: Float[Tensor, "kind column"] | None = None
    levels: list[Colours] = field(default_factory=list)
    shares: Shares | None = None
    passed: dict[str, int] = field(default_factory=dict)

    def again(self, likely: Callable[[Tensor], Tensor] | None, **chosen: bool) -> Evidence:
        """A fresh start that keeps what was found of the row space of the nodes."""
        known = {"all_kinds": self.all_kinds, "shown": self.shown, "allowed": self.allowed}
        return Evidence(self.domain, likely, most_nodes=self.most_nodes, **chosen, **known)


def node_space(anatomy: Anatomy, width: int) -> Subspace:
    """The row space of the node features.

    A convolution's first layer shows neighbourhood means, which span less than the features do when the adjacency is
    singular. The read-out, where it reads the features beside the embedding, shows them directly.
    """
    first = anatomy.spans[0]
    if not (anatomy.mixes(0) and anatomy.model.concatenate) or anatomy.model.pool_first:
        return first
    beside = anatomy.spans[-1].restricted(slice(0, width))
    return beside if beside.rank >= first.rank and not beside.full else first


def shows_features(anatomy: Anatomy, space: Subspace) -> bool:
    """Whether every kind of node lies in the space, which is that of neighbourhood means in the first layer's."""
    return space.full or not (space is anatomy.spans[0] and anatomy.mixes(0))


def kinds_of_nodes(
    anatomy: Anatomy, evidence: Evidence, most_degree: int, budget: Budget
) -> tuple[Tensor, Tensor, Colours]:
    """The kinds of nodes, their features, and them as colours with a degree each."""
    domain, evidence.most_degree = evidence.domain, most_degree
    if evidence.allowed is None:
        space = node_space(anatomy, domain.width)
        evidence.shown = shows_features(anatomy, space)
        evidence.allowed = _kinds(evidence, space, budget)
    kinds = evidence.allowed
    if evidence.likely is not None:
        kinds = kinds[evidence.likely(kinds)]
    if domain.degree_block is not None:
        degrees = kinds[:, domain.degree_block]
    else:
        tried = min(most_degree, domain.nodes - 1) + 1
        degrees = torch.arange(tried).repeat(len(kinds))
        kinds = kinds.repeat_interleave(tried, 0)
    features = domain.to_model(domain.one_hot(kinds).double())
    return kinds, features, Colours(features, tuple(degrees.tolist()), tuple(range(len(kinds))))


def _kinds(evidence: Evidence, space: Subspace, budget: Budget) -> Int[Tensor, "kind block"]:
    domain = evidence.domain
    if len(domain.blocks) >= MANY and domain.vocabulary is None and not space.full:
        corners = corner_kinds(domain, space, budget)
        if corners is not None:
            evidence.all_kinds = corners.complete
            return corners.choices
    return kinds_in(domain, space, budget)


def gather(
    anatomy: Anatomy,
    evidence: Evidence,
    budget: Budget,
    *,
    most_degree: int,
    most_nodes: int,
    scores: Tensor | None,
    tolerance: float | None,
) -> None:
    """Fill `evidence` stage by stage; without `scores`, up to the counts. Raises: OutOfBudget, TooMany."""
    with budget.stage("nodes"):
        evidence.kinds, evidence.features, nodes = kinds_of_nodes(anatomy, evidence, most_degree, budget)
        evidence.levels.append(nodes)
        evidence.passed["nodes"] = len(nodes)
    for layer in range(anatomy.depth):
        with budget.stage(f"blocks {layer + 1}"):
            before = evidence.levels[-1]
            check = check_of(anatomy, layer, before, evidence.features, tolerance)
            hidden = evidence.singular and anatomy.mixes(layer + 1)
            if layer == 0 and len(evidence.domain.blocks) >= MANY:
                found = told_blocks(
                    check, before, budget, repeated=not evidence.distinct, hidden=hidden, doubting=evidence.doubting
                )
            else:
                search = blocks_off_the_space if hidden else next_blocks if layer else first_blocks
                found = search(check, before, budget)
            evidence.levels.append(found)
            evidence.passed[f"blocks {layer + 1}"] = len(found)
            if not len(found):
                return
    if scores is None:
        return
    with budget.stage("counts"):
        rows = read_rows(anatomy, evidence.levels[-1], evidence.features)
        budget.afford(SECONDS_TO_WEIGH * len(rows) ** 3, f"weighing {len(rows)} neighbourhoods")
        room = min(evidence.domain.nodes, most_nodes)
        evidence.shares = shares(anatomy, rows, scores, 1 / most_nodes, room)


def read_rows(anatomy: Anatomy, colours: Colours, features: Tensor) -> Float[Tensor, "colour column"]:
    """The rows that the read-out reads of each colour."""
    if not anatomy.model.concatenate:
        return colours.rows
    return torch.cat([features[list(colours.kinds)], colours.rows], 1)


def split(counts: list[int], groups: tuple[tuple[int, ...], ...], most: int = MOST_SPLITS) -> list[dict[int, int]]:
    """Counts of colours from counts of groups: every way to share a group's count among its colours."""
    ways = [
        [dict(zip(group, parts)) for parts in islice(_parts(count, len(group)), most)]
        for count, group in zip(counts, groups)
    ]
    return [
        {colour: count for part in choice for colour, count in part.items() if count}
        for choice in islice(product(*ways), most)
    ]


def _parts(total: int, count: int) -> Iterator[tuple[int, ...]]:
    if count == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _parts(total - first, count - 1):
            yield (first, *rest)
