"""Forms of a graph that tell it from others: by colour refinement and singling nodes out, and by its rings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from invertigo.attacks.exact.grain.realisation import Edges


def smallest_rings(near: Sequence[Sequence[int]], edges: Edges) -> dict[tuple[int, int], int]:
    """For each edge that is on a ring, the size of its smallest ring."""
    sizes: dict[tuple[int, int], int] = {}
    for a, b in edges:
        seen, front, steps = {a}, [a], 0
        while front and b not in seen:
            steps += 1
            reached = [c for v in front for c in near[v] if not (v == a and c == b)]
            front = [c for c in dict.fromkeys(reached) if c not in seen]
            seen.update(front)
        if b in seen:
            sizes[a, b] = steps + 1
    return sizes


def neighbours(edges: Edges, count: int) -> list[list[int]]:
    """The neighbours of each node."""
    near: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        near[a].append(b)
        near[b].append(a)
    return near


def first_form(colours: Sequence[int], near: Sequence[Sequence[int]]) -> tuple[tuple, tuple]:
    """A form that two drawings of one graph usually share, and an invariant that they always share.

    Colours are refined until they settle; then one node of the first shared colour is set apart, and so on. Where
    nodes of one colour are not interchangeable the form depends on which was taken, so equal forms mean equal graphs,
    but different forms may not mean different ones.
    """
    refined = _settled(list(colours), near)
    invariant = tuple(sorted(Counter(refined).items()))
    while True:
        shared = [c for c, count in Counter(refined).items() if count > 1]
        if not shared:
            break
        chosen = refined.index(min(shared))
        refined = _settled([2 * c + (node == chosen) for node, c in enumerate(refined)], near)
    place = {c: number for number, c in enumerate(sorted(refined))}
    at = [place[c] for c in refined]
    kinds = tuple(colours[node] for node in sorted(range(len(at)), key=at.__getitem__))
    return (
        kinds,
        tuple(sorted(tuple(sorted((at[a], at[b]))) for a in range(len(at)) for b in near[a] if a < b)),
    ), invariant


def _settled(colours: list[int], near: Sequence[Sequence[int]]) -> list[int]:
    """Refined colours, numbered in an order that does not depend on the nodes' order."""
    count = len(set(colours))
    while True:
        told = [(c, tuple(sorted(colours[b] for b in around))) for c, around in zip(colours, near)]
        names = {name: number for number, name in enumerate(sorted(set(told)))}
        colours = [names[name] for name in told]
        if len(names) == count:
            return colours
        count = len(names)
