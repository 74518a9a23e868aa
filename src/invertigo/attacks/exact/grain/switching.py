"""All graphs with given colours, from one of them: edge switches, which keep every node's neighbours' colours.

Two edges a-b and c-d whose ends have the same colours may be exchanged for a-d and c-b. Any two graphs with the same
degree sequences are joined by such switches, between two colours (Ryser 1957) as within one (Petersen 1891): so when no
switch leads out of a set of graphs up to isomorphism, there are no others with as many nodes of each colour. That
proves a graph unique in a number of steps quadratic in its edges, where listing all graphs may never end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from invertigo.attacks.exact.grain.realisation import Edges


def switched(own: Sequence[int], alike: Sequence[int], edges: Edges) -> Iterator[Edges]:
    """Every graph one switch away from this one, but for those that a swap of two alike nodes gives as well.

    Args:
        own: the colour by which a node's neighbours know it.
        alike: equal for nodes that an isomorphism may exchange.
    """
    near: dict[int, set[int]] = defaultdict(set)
    kinds: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for a, b in sorted(edges):
        near[a].add(b)
        near[b].add(a)
        first, second = sorted((a, b), key=lambda node: own[node])
        kinds[own[first], own[second]].append((first, second))
    for (left, right), there in kinds.items():
        for place, (a, b) in enumerate(there):
            for c, d in there[place + 1 :]:
                for x, y in ((c, d), (d, c)) if left == right else ((c, d),):
                    free = len({a, b, x, y}) == 4 and y not in near[a] and b not in near[x]
                    if free and not _swapped(alike, near, (a, b), (x, y)):
                        yield edges - {_edge(a, b), _edge(x, y)} | {_edge(a, y), _edge(x, b)}


def _swapped(alike: Sequence[int], near: dict[int, set[int]], first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Exchanging the two ends on one side, which have the same other neighbours, is the same as the switch."""
    (a, b), (c, d) = first, second
    return (alike[b] == alike[d] and near[b] - {a, d} == near[d] - {c, b}) or (
        alike[a] == alike[c] and near[a] - {b, c} == near[c] - {d, a}
    )


def _edge(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)
