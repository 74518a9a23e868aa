"""Whether two coloured graphs are the same: part by part, by refining their colours side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MOST_REFINEMENTS = 2_000

Neighbours = Sequence[Sequence[int]]


class Undecided(Exception):
    """The refinements allowed are used up, and the graphs were neither matched nor told apart."""


def same_graph(
    colours: Sequence[int],
    near: Neighbours,
    others: Sequence[int],
    other_near: Neighbours,
    *,
    most: int = MOST_REFINEMENTS,
) -> bool | None:
    """Whether an isomorphism keeps the colours; None when `most` refinements did not tell."""
    try:
        return matching_nodes(colours, near, others, other_near, most=most) is not None
    except Undecided:
        return None


def matching_nodes(
    colours: Sequence[int],
    near: Neighbours,
    others: Sequence[int],
    other_near: Neighbours,
    *,
    most: int = MOST_REFINEMENTS,
) -> list[int] | None:
    """For each node its image under an isomorphism that keeps the colours; None when there is none.

    Connected parts are paired one by one: parts that match the same part match each other, so the first match is as
    good as any, and a salt of many equal ions costs no more than its ions. Within a part one node of a shared colour
    is set apart on the left, each of that colour in turn on the right, and both sides are refined again. Nodes that
    no refinement tells apart are nearly always interchangeable, so the first try succeeds.

    Args:
        most: refinements after which the search ends; the work does not depend on the machine.

    Raises: Undecided.
    """
    work = [most]
    if len(colours) != len(others):
        return None
    a, b = _refined(list(colours), near, list(others), other_near, work)
    if Counter(a) != Counter(b):
        return None
    image = [-1] * len(a)
    unused = [(sorted(b[node] for node in part), part) for part in parts(other_near)]
    for part in parts(near):
        told = sorted(a[node] for node in part)
        for place, (other_told, other) in enumerate(unused):
            found = _within(a, near, part, b, other_near, other, work) if told == other_told else None
            if found is not None:
                del unused[place]
                for node, mate in zip(part, found):
                    image[node] = mate
                break
        else:
            return None
    return image


def parts(near: Neighbours) -> list[list[int]]:
    """The connected parts, each a list of nodes in ascending order."""
    left, found = set(range(len(near))), []
    for start in range(len(near)):
        if start not in left:
            continue
        left.remove(start)
        part, stack = [start], [start]
        while stack:
            fresh = [node for node in near[stack.pop()] if node in left]
            left.difference_update(fresh)
            part += fresh
            stack += fresh
        found.append(sorted(part))
    return found


def _within(
    a: list[int], near: Neighbours, part: list[int], b: list[int], other_near: Neighbours, other: list[int], work: list
) -> list[int] | None:
    """The images of the nodes of one connected part in another."""
    here, there = ({node: place for place, node in enumerate(nodes)} for nodes in (part, other))
    found = _same(
        [a[node] for node in part],
        [[here[v] for v in near[node]] for node in part],
        [b[node] for node in other],
        [[there[v] for v in other_near[node]] for node in other],
        work,
    )
    return None if found is None else [other[place] for place in found]


def _same(a: list[int], near: Neighbours, b: list[int], other_near: Neighbours, work: list[int]) -> list[int] | None:
    a, b = _refined(a, near, b, other_near, work)
    counts = Counter(a)
    if counts != Counter(b):
        return None
    shared = [colour for colour, count in counts.items() if count > 1]
    if not shared:
        at = {colour: node for node, colour in enumerate(b)}
        image = [at[colour] for colour in a]
        kept = all({image[v] for v in near[u]} == set(other_near[image[u]]) for u in range(len(a)))
        return image if kept else None
    chosen = min(shared, key=lambda colour: (counts[colour], colour))
    fresh, node = max(a) + 1, a.index(chosen)
    apart = [fresh if u == node else colour for u, colour in enumerate(a)]
    for rival, colour in enumerate(b):
        if colour == chosen:
            tried = [fresh if u == rival else colour for u, colour in enumerate(b)]
            found = _same(apart, near, tried, other_near, work)
            if found is not None:
                return found
    return None


def _refined(
    a: list[int], near: Neighbours, b: list[int], other_near: Neighbours, work: list[int]
) -> tuple[list[int], list[int]]:
    if work[0] <= 0:
        raise Undecided
    work[0] -= 1
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
