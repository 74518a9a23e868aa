"""Whether any graph has given colours, and one that does: degree sequences between each pair of colours.

Nodes of colour a want so many neighbours of colour b, and the other way round. Edges between different pairs of colours
do not get in each other's way, so a graph exists when each pair's degree sequences have one: between two colours a
bipartite graph (Gale and Ryser), within one colour a simple graph (Erdős and Gallai).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from invertigo.attacks.exact.grain.realisation import Edges, Wanted

Degrees = Mapping[int, int]
"""The degree of each node."""


def realisable(wanted: Wanted) -> bool:
    """Whether any simple graph, connected or not, has nodes that want these neighbours."""
    return all(
        graphical(list(left.values())) if left is right else bipartite(list(left.values()), list(right.values()))
        for left, right in pairs(wanted)
    )


def any_graph(wanted: Wanted) -> Edges | None:
    """One graph whose nodes have the neighbours that they want, or None: the neediest nodes are served first.

    Source: Havel (1955), Hakimi (1962), and the same for bipartite graphs.
    """
    edges: set[tuple[int, int]] = set()
    for left, right in pairs(wanted):
        made = _joined(dict(left), None if left is right else dict(right))
        if made is None:
            return None
        edges |= made
    return frozenset(edges)


def pairs(wanted: Wanted) -> Iterator[tuple[Degrees, Degrees]]:
    """For each pair of colours, how many neighbours of the other one each node wants; the same mapping twice within
    one colour. Nodes that want none are left out."""
    needs: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for node, (own, around) in enumerate(zip(wanted.own, wanted.around)):
        for colour, count in Counter(around).items():
            needs[own, colour][node] = count
    for a, b in sorted(needs):
        if a == b:
            yield needs[a, a], needs[a, a]
        elif a < b or (b, a) not in needs:
            yield needs[a, b], needs.get((b, a), {})


def bipartite(left: list[int], right: list[int]) -> bool:
    """Whether a bipartite graph has these degrees on its two sides.

    Source: Gale (1957) and Ryser (1957).
    """
    if sum(left) != sum(right):
        return False
    left = sorted(left, reverse=True)
    return all(sum(left[:k]) <= sum(min(k, degree) for degree in right) for k in range(1, len(left) + 1))


def graphical(degrees: list[int]) -> bool:
    """Whether a simple graph has these degrees.

    Source: Erdős and Gallai (1960).
    """
    ordered = sorted(degrees, reverse=True)
    if sum(ordered) % 2:
        return False
    return all(
        sum(ordered[:k]) <= k * (k - 1) + sum(min(k, degree) for degree in ordered[k:])
        for k in range(1, len(ordered) + 1)
    )


def _joined(left: dict[int, int], right: dict[int, int] | None) -> set[tuple[int, int]] | None:
    edges = set()
    while left and max(left.values()):
        node = max(left, key=lambda a: (left[a], a))
        count = left.pop(node)
        there = left if right is None else right
        chosen = sorted((b for b in there if there[b]), key=lambda b: (-there[b], b))[:count]
        if len(chosen) < count:
            return None
        for b in chosen:
            there[b] -= 1
            edges.add((min(node, b), max(node, b)))
    return None if right is not None and any(right.values()) else edges
