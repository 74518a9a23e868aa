"""Graphs whose nodes are of a kind each: colour refinement, isomorphism, and likeness of two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix
from torch import Tensor

from invertigo.domains.sameness import Undecided, matching_nodes

ROUNDS = 2
"""Rounds of colour refinement that likeness looks at: a node with its neighbours and theirs."""


@dataclass(frozen=True)
class LabelledGraph:
    """`kinds` (node, group) holds the chosen member of each one-hot group, `edges` is symmetric without self-loops."""

    kinds: Int[Tensor, "node group"]
    edges: Bool[Tensor, "node node"]

    def __len__(self) -> int:
        return len(self.kinds)

    @cached_property
    def neighbours(self) -> list[list[int]]:
        """The neighbours of each node."""
        found: list[list[int]] = [[] for _ in range(len(self))]
        for a, b in self.edges.nonzero().tolist():
            found[a].append(b)
        return found

    @property
    def num_edges(self) -> int:
        """Undirected edges, each counted once."""
        return int(self.edges.sum()) // 2


def colourings(graphs: Sequence[LabelledGraph], rounds: int) -> list[list[list[int]]]:
    """`[graph][round][node]`: colours after 0 to `rounds` rounds of refinement, comparable between the graphs.

    Source: Weisfeiler and Leman, "A reduction of a graph to a canonical form", 1968.
    """
    names: dict[object, int] = {}
    told = []
    for graph in graphs:
        # Digests, because a node may have thousands of groups.
        rows = (blake2b(row.tobytes(), digest_size=16).digest() for row in graph.kinds.numpy())
        colours = [names.setdefault(row, len(names)) for row in rows]
        history = [colours]
        for _ in range(rounds):
            around = (tuple(sorted(colours[b] for b in near)) for near in graph.neighbours)
            colours = [names.setdefault((own, near), len(names)) for own, near in zip(colours, around)]
            history.append(colours)
        told.append(history)
    return told


def isomorphism(left: LabelledGraph, right: LabelledGraph) -> Int[Tensor, " node"] | None:
    """For each node of `left` its image in `right` under an isomorphism that keeps kinds; None when there is none.

    Also None when none was found within `sameness.MOST_REFINEMENTS`, which takes graphs made for the purpose: the
    search then ends rather than running on for hours.
    """
    if len(left) != len(right) or left.num_edges != right.num_edges:
        return None
    ours, theirs = (history[-1] for history in colourings([left, right], 0))
    try:
        found = matching_nodes(ours, left.neighbours, theirs, right.neighbours)
    except Undecided:
        return None
    return None if found is None else torch.tensor(found, dtype=torch.long)


def in_own_order(graph: LabelledGraph) -> LabelledGraph:
    """The same graph with its nodes in an order that does not depend on the one they came in.

    Colours are refined until they stay; then one node of the first shared colour is singled out, and so on. Nodes of
    one colour that no symmetry exchanges (rare in molecules) are told apart by the order they came in.
    """
    ranks = _ranked(graph.kinds.tolist())
    while len(graph):
        refined = _ranked([(ranks[a], sorted(ranks[b] for b in near)) for a, near in enumerate(graph.neighbours)])
        if len(set(refined)) > len(set(ranks)):
            ranks = refined
            continue
        shared = next((rank for rank, count in sorted(Counter(ranks).items()) if count > 1), None)
        if shared is None:
            break
        single = ranks.index(shared)
        ranks = _ranked([(rank, node != single) for node, rank in enumerate(ranks)])
    order = torch.tensor(sorted(range(len(graph)), key=ranks.__getitem__), dtype=torch.long)
    return LabelledGraph(graph.kinds[order], graph.edges[order][:, order])


def _ranked(keys: Sequence[Any]) -> list[int]:
    places = {repr(key): place for place, key in enumerate(sorted(keys))}
    return [places[repr(key)] for key in keys]


def likeness(
    left: Sequence[LabelledGraph], right: Sequence[LabelledGraph], widths: Sequence[int]
) -> Float[Tensor, "n m"]:
    """How alike every pair is, in [0, 1]; 1 for the same graph.

    The mean of two cosines: of the summed one-hot groups of the nodes (what there is), and of the histogram of node
    colours after 0 to 2 rounds of refinement (how it hangs together).
    """
    told = colourings([*left, *right], ROUNDS)
    tallies = [Counter(colour for colours in history for colour in colours) for history in told]
    parts = torch.stack([_sums(graph, widths) for graph in (*left, *right)]).numpy()
    similarity = (_cosines(_histograms(tallies), len(left)) + _cosines(csr_matrix(parts), len(left))) / 2
    return torch.from_numpy(similarity).clamp(0, 1)


def _histograms(tallies: Sequence[Counter[int]]) -> csr_matrix:
    rows = np.repeat(np.arange(len(tallies)), [len(tally) for tally in tallies])
    columns = np.array([colour for tally in tallies for colour in tally])
    counts = np.array([float(count) for tally in tallies for count in tally.values()])
    return csr_matrix((counts, (rows, columns)), shape=(len(tallies), int(columns.max(initial=0)) + 1))


def _sums(graph: LabelledGraph, widths: Sequence[int]) -> Float[Tensor, " column"]:
    """How many nodes have each member of each group, and the number of edges; a yes or no has two members."""
    members = torch.tensor(widths).clamp_min(2)
    counts = torch.bincount((graph.kinds + members.cumsum(0) - members).flatten(), minlength=int(members.sum()))
    return torch.cat([counts, torch.tensor([graph.num_edges])]).double()


def _cosines(rows: csr_matrix, split: int) -> np.ndarray:
    norms = np.maximum(np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel()), 1e-12)
    products = (rows[:split] @ rows[split:].T).toarray()
    return products / norms[:split, None] / norms[None, split:]
