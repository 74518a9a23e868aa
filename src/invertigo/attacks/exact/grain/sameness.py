"""Whether two coloured graphs are the same, by refining their colours side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MOST_REFINEMENTS = 400

Neighbours = Sequence[Sequence[int]]


def same_graph(colours: Sequence[int], near: Neighbours, others: Sequence[int], other_near: Neighbours) -> bool | None:
    """Whether an isomorphism keeps the colours; None when that is not known after a few hundred refinements.

    One node of a shared colour is set apart on the left, each of that colour in turn on the right, and both sides are
    refined again. Nodes that no refinement tells apart are nearly always interchangeable, so the first try succeeds.
    """
    left = [0] * MOST_REFINEMENTS
    try:
        return _same(list(colours), near, list(others), other_near, left)
    except IndexError:
        return None


def _same(a: list[int], near: Neighbours, b: list[int], other_near: Neighbours, work: list[int]) -> bool:
    work.pop()
    a, b = _refined(a, near, b, other_near)
    counts = Counter(a)
    if counts != Counter(b):
        return False
    shared = [colour for colour, count in counts.items() if count > 1]
    if not shared:
        at = {colour: node for node, colour in enumerate(b)}
        image = [at[colour] for colour in a]
        return all({image[v] for v in near[u]} == set(other_near[image[u]]) for u in range(len(a)))
    chosen = min(shared, key=lambda colour: (counts[colour], colour))
    fresh, node = max(a) + 1, a.index(chosen)
    apart = [fresh if u == node else colour for u, colour in enumerate(a)]
    for rival, colour in enumerate(b):
        if colour == chosen:
            tried = [fresh if u == rival else colour for u, colour in enumerate(b)]
            if _same(apart, near, tried, other_near, work):
                return True
    return False


def _refined(a: list[int], near: Neighbours, b: list[int], other_near: Neighbours) -> tuple[list[int], list[int]]:
    count = len(set(a))
    while True:
        names: dict[tuple, int] = {}
        a, b = (
            [names.setdefault((own[u], *sorted(own[v] for v in around[u])), len(names)) for u in range(len(own))]
            for own, around in ((a, near), (b, other_near))
        )
        if len(set(a)) == count or Counter(a) != Counter(b):
            return a, b
        count = len(set(a))
