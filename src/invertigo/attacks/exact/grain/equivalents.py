"""All graphs with the same gradient: told apart, put in order of what is likely, and counted.

A gradient tells what colour refinement (Weisfeiler and Leman) of as many rounds as the model has layers tells, and of
the numbers of nodes their shares only. So two graphs have it alike when they have the same colours in the same shares:
graphs that refinement cannot tell apart, copies, k-fold covers, and the quotients that they cover.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from invertigo.attacks.exact.grain.budget import Budget, OutOfBudget
from invertigo.attacks.exact.grain.chemistry import NODE_COST, impossible_rings, ring_cost
from invertigo.attacks.exact.grain.degree_sequences import any_graph
from invertigo.attacks.exact.grain.forms import first_form, neighbours, smallest_rings
from invertigo.attacks.exact.grain.realisation import Edges, Search, Wanted
from invertigo.attacks.exact.grain.sizes import Bounds, Options, Sizes, multiples_of
from invertigo.attacks.exact.grain.switching import switched
from invertigo.domains.sameness import parts as parts_of
from invertigo.domains.sameness import same_graph

SMALLEST_COMMON_RING = 5
MOST_REFINEMENTS = 200
"""Refinements after which two graphs that were not told apart count as two, so that neither can be exact."""
SMALL = 12
"""Nodes up to which all copies and covers are listed too; there are hardly any for larger graphs to find."""


@dataclass(frozen=True)
class Member:
    """One graph of the class: the colour of each node, its edges, and how unlikely it is (lower is likelier)."""

    colours: tuple[int, ...]
    edges: Edges
    cost: tuple[float, ...]


@dataclass
class EquivalentGraphs:
    """The graphs that give the same gradient, likeliest first.

    Args:
        unit: the fewest nodes that have these shares; a graph has as many, or 2, 3, ... times as many.
        limit: nodes of the largest graph that there may be.
        closed: numbers of nodes at which every graph is listed, connected or not.
        complete: every graph of up to `limit` nodes is listed.
    """

    members: list[Member] = field(default_factory=list)
    complete: bool = False
    unit: int = 1
    limit: int = 0
    closed: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def alone(self) -> bool:
        """No other graph has as few nodes; all others have 2, 3, ... times as many."""
        return len(self.members) == 1 and self.unit in self.closed and len(self.members[0].colours) == self.unit


def equivalent_graphs(
    own: Sequence[int],
    around: Sequence[tuple[int, ...]],
    options: Options | Sequence[Sequence[int]],
    budget: Budget,
    *,
    aromatic: Sequence[bool] | None,
    most_nodes: int,
    most: int,
    seconds: float,
    sizes: tuple[int, int] | None = None,
) -> EquivalentGraphs:
    """Realise the counts, smallest multiple first, until one gives a plausible graph; then see what others there are.

    Args:
        own, around: what a colour is known as to its neighbours, and what its neighbours are known as.
        options: possible counts of each colour (several where colours look alike to the gradient), or a function that
            tells those of each multiple.
        aromatic: of molecules, which colours are aromatic atoms; graphs are then ranked by their rings. Of other
            graphs None: fewer parts and fewer nodes are likelier.
        most_nodes: nodes of the largest graphs that are looked for, where `sizes` has no room for the smallest one.
        most: graphs at which listing stops; when the budget ends, those found so far are returned.
        seconds: CPU seconds for each way of listing.
        sizes: the fewest and most nodes that a graph may have, as far as the adversary knows; None: up to `most_nodes`.

    Raises: OutOfBudget when the time ends before the first graph.
    """
    bounds = Bounds(*(sizes or (1, most_nodes)), most_nodes, most, seconds)
    told = options if callable(options) else multiples_of(options)
    return _listed(Sizes(own, around, told, bounds, budget), aromatic)


def _listed(sizes: Sizes, aromatic: Sequence[bool] | None) -> EquivalentGraphs:
    found, budget = EquivalentGraphs(unit=sizes.unit, limit=sizes.bounds.most), sizes.budget
    collect = _Collector(found, aromatic, sizes.bounds, fewest_parts(sizes.own, sizes.around))
    try:
        for fold in sizes.likely():
            if collect.satisfied(fold * found.unit):
                break
            for wanted in sizes.wanted(fold)[0]:
                collect.likely(wanted, budget)
        collect.sort()
        close(collect, sizes, budget)
    except OutOfBudget:
        if not found.members:
            raise
    collect.sort()
    return found


def close(collect: _Collector, sizes: Sizes, budget: Budget) -> None:
    """Note at which sizes every graph is listed. Of graphs that fit the domain twice, only the smallest size is closed:
    two copies of them are left out, so that the list cannot be complete.

    Raises: OutOfBudget.
    """
    found, folds = collect.found, [fold for fold in sizes.folds() if fold]
    if not found.members or collect.cut:
        return
    smallest = min(len(member.colours) for member in found.members)
    if smallest > found.limit or (2 * smallest <= found.limit and found.limit > SMALL and len(folds) > 1):
        if len(found) == 1:
            collect.close(*sizes.wanted(smallest // found.unit), smallest, budget)
        return
    with_graphs = [fold for fold in folds if not (ways := sizes.wanted(fold))[1] or ways[0]]
    found.complete = all(collect.close(*sizes.wanted(fold), fold * found.unit, budget) for fold in with_graphs)


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
    aromatic: Sequence[bool] | None
    bounds: Bounds
    parts: int
    least: int | None = None
    cut: bool = False
    seen: dict = field(default_factory=dict)
    forms: set = field(default_factory=set)

    def sort(self) -> None:
        """The likeliest first."""
        self.found.members.sort(key=lambda member: member.cost)

    def satisfied(self, nodes: int) -> bool:
        """A graph was found that is likelier than any of so many nodes. Only for want of one are more nodes tried."""
        best = min((member.cost for member in self.found.members), default=None)
        return best is not None and best <= (0, self.parts, self._extra(nodes))

    def likely(self, wanted: Wanted, budget: Budget) -> None:
        """List the graphs whose nodes want these neighbours: connected ones, and only for want of them others."""
        for connected in (True, False):
            before = len(self.found)
            for ring in (SMALLEST_COMMON_RING, 3) if self.aromatic is not None else (3,):
                self._run(wanted, budget, ring, connected)
            if len(self.found) > before:
                break

    def close(self, ways: Sequence[Wanted], every: bool, nodes: int, budget: Budget) -> bool:
        """List all other graphs of so many nodes, one edge switch after another; whether there can be no more."""
        try:
            with budget.limited("closure", self.bounds.seconds):
                done = every and all(self._switch(wanted, budget) for wanted in ways)
        except OutOfBudget:
            if not budget.left:
                raise
            done = False
        if done:
            self.found.closed.add(nodes)
        return done

    def _switch(self, wanted: Wanted, budget: Budget) -> bool:
        waiting = [member.edges for member in self.found.members if member.colours == wanted.alike]
        made = None if waiting else any_graph(wanted)
        if made is not None:
            self._add(wanted.alike, made, budget)
            waiting.append(made)
        while waiting:
            for edges in switched(wanted.own, wanted.alike, waiting.pop()):
                budget.spend()
                if self._add(wanted.alike, edges, budget):
                    waiting.append(edges)
                if len(self.found) > self.bounds.members:
                    return False
        return True

    def _run(self, wanted: Wanted, budget: Budget, ring: int, connected: bool) -> None:
        """Search until done."""
        search = Search(wanted, budget, ring=ring, connected=connected)
        try:
            with budget.limited("realisation", self.bounds.seconds):
                for edges in search.graphs():
                    if len(self.found) >= self.bounds.members:
                        self.cut = True
                        return
                    self._add(wanted.alike, edges, budget)
        except OutOfBudget:
            self.cut = True
            if not budget.left:
                raise

    def _add(self, colours: tuple[int, ...], edges: Edges, budget: Budget) -> bool:
        """Take a graph into the list; whether it is a new one."""
        near = neighbours(edges, len(colours))
        form, invariant = first_form(colours, near)
        if form in self.forms:
            return False
        self.forms.add(form)
        same = self.seen.setdefault(invariant, [])
        for others, other in same:
            budget.spend()
            if same_graph(colours, near, others, other, most=MOST_REFINEMENTS):
                return False
        same.append((colours, near))
        self.least = self.least or len(colours)
        self.found.members.append(Member(colours, edges, self._cost(colours, near, edges)))
        return True

    def _extra(self, nodes: int) -> float:
        return NODE_COST * (nodes - (self.least or nodes))

    def _cost(self, colours: tuple[int, ...], near: list[list[int]], edges: Edges) -> tuple[float, ...]:
        """Impossible rings, parts, then uncommon rings and nodes beyond the fewest."""
        extra = self._extra(len(colours))
        if self.aromatic is None:
            return (0.0, float(len(parts_of(near))), extra)
        rings = smallest_rings(near, edges)
        impossible = impossible_rings([self.aromatic[c] for c in colours], rings)
        return (float(impossible), float(len(parts_of(near))), ring_cost(Counter(rings.values())) + extra)
