"""Small graphs cut out of one large one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HOPS = 3


def grow(neighbours: Sequence[Sequence[int]], size: int, generator: torch.Generator, *, tries: int = 200) -> list[int]:
    """Nodes of a connected subgraph: from a random centre, one random neighbour after another, at most 3 hops away.

    Returns fewer than `size` nodes, the most that any try reached, where the graph has no such place.
    Source: Drencheva et al. 2025 (GRAIN), appendix on data: neighbourhoods of three hops.
    """
    best: list[int] = []
    for _ in range(tries):
        centre = int(torch.randint(len(neighbours), (), generator=generator))
        found = _grown(neighbours, centre, size, generator)
        best = max(best, found, key=len)
        if len(best) == size:
            break
    return best


def _grown(neighbours: Sequence[Sequence[int]], centre: int, size: int, generator: torch.Generator) -> list[int]:
    away = {centre: 0}
    frontier = sorted(set(neighbours[centre]) - {centre})
    while frontier and len(away) < size:
        chosen = frontier.pop(int(torch.randint(len(frontier), (), generator=generator)))
        away[chosen] = 1 + min(away[near] for near in neighbours[chosen] if near in away)
        if away[chosen] < HOPS:
            fresh = set(neighbours[chosen]) - away.keys() - set(frontier)
            frontier = sorted([*frontier, *fresh])
    return list(away)


def induced(neighbours: Sequence[Sequence[int]], nodes: Sequence[int]) -> Tensor:
    """(node, node) booleans: the edges among `nodes`, both ways, without self-loops."""
    place = {node: i for i, node in enumerate(nodes)}
    edges = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
    for node in nodes:
        for near in neighbours[node]:
            if near in place and near != node:
                edges[place[node], place[near]] = edges[place[near], place[node]] = True
    return edges
