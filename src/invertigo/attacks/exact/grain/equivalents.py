"""All graphs with the same gradient: told apart, put in order of what is likely, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from invertigo.attacks.exact.grain.budget import Budget, OutOfBudget
from invertigo.attacks.exact.grain.chemistry import NODE_COST, impossible_rings, ring_cost
from invertigo.attacks.exact.grain.realisation import Edges, Search, Wanted, balanced, instances
from invertigo.domains.sameness import parts as parts_of
from invertigo.domains.sameness import same_graph

SMALLEST_COMMON_RING = 5
MOST_FOLD = 6


@dataclass(frozen=True)
class Member:
    """One graph of the class: the colour of each node, its edges, and how unlikely it is (lower is likelier)."""

    colours: tuple[int, ...]
    edges: Edges
    cost: tuple[float, ...]


@dataclass
class EquivalentGraphs:
    """The graphs that give the same gradient, likeliest first. `complete` tells that there are no others of that size.

    `fold` is the number of nodes over the least number that the gradient allows. A mean over nodes cannot see how
    often a graph is repeated, so larger multiples always exist; the smallest plausible one is listed.
    """

    members: list[Member] = field(default_factory=list)
    complete: bool = False
    fold: int = 1

    def __len__(self) -> int:
        return len(self.members)


def equivalent_graphs(
    own: Sequence[int],
    around: Sequence[tuple[int, ...]],
    options: Sequence[Sequence[int]],
    budget: Budget,
    *,
    aromatic: Sequence[bool] | None,
    most_nodes: int,
    most: int,
    seconds: float,
) -> EquivalentGraphs:
    """Realise the counts, smallest multiple first, until one gives a plausible graph.

    Args:
        options: possible counts of each colour (several where colours look alike to the gradient).
        aromatic: of molecules, which colours are aromatic atoms; graphs are then ranked by their rings. Of other
            graphs None: fewer parts and fewer nodes are likelier.
        most: members at which counting stops; when the budget ends, those found so far are returned.
        seconds: CPU seconds for each way of searching.
    """
    found = EquivalentGraphs(complete=True)
    least, parts = None, fewest_parts(own, around)
    try:
        for fold, wanted in _wanted(own, around, options, most_nodes, budget):
            nodes = len(wanted.alike)
            extra = NODE_COST * (nodes - (least or nodes))
            # Counts that look alike to the gradient are all tried; a larger multiple only for want of a likely graph.
            if least not in (None, nodes) and min(member.cost for member in found.members) <= (0, parts, extra):
                continue
            collect = _Collector(found, wanted.alike, aromatic, extra, most)
            for connected in (True, False):
                before = len(found)
                for ring in (SMALLEST_COMMON_RING, 3) if aromatic is not None else (3,):
                    found.complete &= collect.run(wanted, budget, ring, connected, seconds)
                if len(found) > before:
                    least, found.fold = least or nodes, fold
                    break
    except OutOfBudget:
        if not found.members:
            raise
        found.complete = False
    found.members.sort(key=lambda member: member.cost)
    return found


def _wanted(
    own: Sequence[int],
    around: Sequence[tuple[int, ...]],
    options: Sequence[Sequence[int]],
    most_nodes: int,
    budget: Budget,
) -> Iterator[tuple[int, Wanted]]:
    """Every multiple that may have a graph, and what its nodes want, smallest first. Raises: OutOfBudget."""
    first = min((_least_fold(own, around, counts) for counts in options), default=1)
    for fold in range(first, first + MOST_FOLD):
        for counts in options:
            budget.spend()
            wanted = instances(own, around, [fold * count for count in counts])
            if fold * sum(counts) <= most_nodes and balanced(wanted):
                yield fold, wanted


def _least_fold(own: Sequence[int], around: Sequence[tuple[int, ...]], counts: Sequence[int]) -> int:
    """Times these counts must be taken for every node to have as many different neighbours of a colour as it wants."""
    there: Counter[int] = Counter()
    for colour, count in zip(own, counts):
        there[colour] += count
    wants = [
        (number + (named == mine), there[named])
        for mine, near, count in zip(own, around, counts)
        for named, number in Counter(near).items()
        if count
    ]
    return max((-(-wanted // held) for wanted, held in wants if held), default=1)


def fewest_parts(own: Sequence[int], around: Sequence[tuple[int, ...]]) -> int:
    """Parts that no edge can join: no colour of one is wanted by a colour of another."""
    names = {name: number for number, name in enumerate(sorted({*own, *(b for near in around for b in near)}))}
    joined: Edges = frozenset((names[a], names[b]) for a, near in zip(own, around) for b in near if a != b)
    return len(parts_of(neighbours(joined, len(names))))


def doubled(member: Member) -> Member:
    """Two copies of a graph, which a mean over nodes cannot tell from one; salts have such copies."""
    shift = len(member.colours)
    edges = member.edges | {(a + shift, b + shift) for a, b in member.edges}
    return Member(member.colours * 2, edges, (member.cost[0], 2 * member.cost[1], 2 * member.cost[2]))


@dataclass
class _Collector:
    found: EquivalentGraphs
    colours: tuple[int, ...]
    aromatic: Sequence[bool] | None
    extra: float
    most: int
    seen: dict = field(default_factory=dict)
    forms: set = field(default_factory=set)

    def run(self, wanted, budget: Budget, ring: int, connected: bool, seconds: float) -> bool:
        """Search until done; whether it was."""
        search = Search(wanted, budget, ring=ring, connected=connected)
        try:
            with budget.limited("realisation", seconds):
                for edges in search.graphs():
                    if len(self.found) >= self.most:
                        return False
                    self._add(edges, budget)
        except OutOfBudget:
            if not budget.left:
                raise
            return False
        return True

    def _add(self, edges: Edges, budget: Budget) -> None:
        near = neighbours(edges, len(self.colours))
        form, invariant = first_form(self.colours, near)
        if form in self.forms:
            return
        self.forms.add(form)
        same = self.seen.setdefault(invariant, [])
        for other in same:
            budget.spend()
            if same_graph(self.colours, near, self.colours, other):
                return
        same.append(near)
        self.found.members.append(Member(self.colours, edges, self._cost(near, edges)))

    def _cost(self, near: list[list[int]], edges: Edges) -> tuple[float, ...]:
        """Impossible rings, parts, then uncommon rings and nodes beyond the fewest."""
        if self.aromatic is None:
            return (0.0, float(len(parts_of(near))), self.extra)
        rings = smallest_rings(near, edges)
        impossible = impossible_rings([self.aromatic[c] for c in self.colours], rings)
        return (float(impossible), float(len(parts_of(near))), ring_cost(Counter(rings.values())) + self.extra)


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
