"""Every graph whose nodes have given colours: edges are set where both ends still want them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from invertigo.attacks.exact.grain.budget import Budget

Edges = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Wanted:
    """What node `i` is and wants: colour `own[i]`, and neighbours of the colours `around[i]`.

    `alike[i]` is equal for nodes that are interchangeable before any edge is set.
    """

    own: tuple[int, ...]
    around: tuple[tuple[int, ...], ...]
    alike: tuple[int, ...]


def instances(own: Sequence[int], around: Sequence[tuple[int, ...]], counts: Sequence[int]) -> Wanted:
    """`counts[c]` nodes of each colour."""
    colours = [c for c, count in enumerate(counts) for _ in range(count)]
    return Wanted(tuple(own[c] for c in colours), tuple(around[c] for c in colours), tuple(colours))


def balanced(wanted: Wanted) -> bool:
    """As many nodes of colour a want one of colour b as the other way round, and an even number want their own."""
    edges = Counter((a, b) for a, around in zip(wanted.own, wanted.around) for b in around)
    return all(edges[b, a] == count and (a != b or count % 2 == 0) for (a, b), count in edges.items())


class Search:
    """Backtracking over the edges, one node after another, along the part that is connected already.

    The node in hand is finished before the next one: its neighbours are nodes that want it back, and nodes that
    nothing tells apart yet are tried once. `ring` is the smallest ring allowed. Rings of six and five are closed
    first, then new nodes are taken, then other rings are closed: the graphs that come first are the likely ones.
    """

    def __init__(self, wanted: Wanted, budget: Budget, *, ring: int = 3, connected: bool = True) -> None:
        self.wanted, self.budget = wanted, budget
        self.ring, self.connected = ring, connected
        self.need = [Counter(around) for around in wanted.around]
        self.near: list[list[int]] = [[] for _ in wanted.own]
        self.steps = 0
        self.by_colour: dict[int, list[int]] = defaultdict(list)
        for node, colour in enumerate(wanted.own):
            self.by_colour[colour].append(node)
        self.open = sum(len(around) for around in wanted.around)
        self.order: list[int] = []
        self.touched = [False] * len(wanted.own)

    def graphs(self) -> Iterator[Edges]:
        """All graphs, as edges (smaller node, larger node). Raises: OutOfBudget."""
        if balanced(self.wanted):
            yield from self._from(0)

    def _from(self, at: int) -> Iterator[Edges]:
        self.steps += 1
        if self.steps % 64 == 0:
            self.budget.spend()
        while at < len(self.order) and not self.need[self.order[at]]:
            at += 1
        if at < len(self.order):
            yield from self._finish(self.order[at], at)
            return
        rest = [node for node, seen in enumerate(self.touched) if not seen]
        if not rest:
            yield frozenset((a, b) for a, near in enumerate(self.near) for b in near if a < b)
            return
        if self.connected and self.order:
            return
        start = min(rest, key=lambda node: (len(self.wanted.around[node]), self._rarity(node), node))
        self.touched[start] = True
        self.order.append(start)
        yield from self._from(at)
        self.order.pop()
        self.touched[start] = False

    def _rarity(self, node: int) -> int:
        return sum(kind == self.wanted.alike[node] for kind in self.wanted.alike)

    def _finish(self, node: int, at: int) -> Iterator[Edges]:
        """Set one more edge of `node`: the wish with the fewest candidates."""
        mine, need = self.wanted.own[node], self.need[node]
        options = {
            colour: [
                b for b in self.by_colour[colour] if self.need[b][mine] > 0 and b != node and b not in self.near[node]
            ]
            for colour in need
        }
        colour = min(options, key=lambda c: len(options[c]) - need[c])
        if len(options[colour]) < need[colour]:
            return
        # Edges of one colour are set in ascending order of the candidates' place, so that each set comes once.
        for chosen in self._ranked(node, options[colour], need[colour]):
            new = [b for b in chosen if not self.touched[b]]
            self._set(node, chosen, new)
            yield from self._from(at)
            self._unset(node, chosen, new)

    def _ranked(self, node: int, options: list[int], count: int) -> Iterator[tuple[int, ...]]:
        """Sets of `count` candidates; interchangeable fresh nodes once, the likely rings first."""
        distance = self._distances(node)
        classes: dict[tuple, list[int]] = defaultdict(list)
        for b in options:
            if self.touched[b]:
                size = distance.get(b, 10**6) + 1
                if size >= self.ring:
                    classes[(_liking(size), 0, b)].append(b)
            else:
                classes[(FRESH, 1, self.wanted.alike[b])].append(b)
        groups = [classes[key] for key in sorted(classes)]
        for tried, chosen in enumerate(_choose(groups, count), 1):
            if tried % 64 == 0:
                self.budget.spend()
            if self.ring <= 3 or count == 1 or self._apart(chosen):
                yield chosen

    def _apart(self, chosen: Sequence[int]) -> bool:
        """No two of these nodes are so near each other that a common neighbour closes a ring that is too small."""
        old = [b for b in chosen if self.touched[b]]
        for place, b in enumerate(old[:-1]):
            distance = self._distances(b)
            if any(distance.get(c, 10**6) + 2 < self.ring for c in old[place + 1 :]):
                return False
        return True

    def _distances(self, node: int) -> dict[int, int]:
        found, front = {node: 0}, [node]
        while front:
            front = [
                b for a in front for b in self.near[a] if b not in found and not found.__setitem__(b, found[a] + 1)
            ]
        return found

    def _set(self, node: int, chosen: Sequence[int], new: Sequence[int]) -> None:
        for b in chosen:
            _take(self.need[node], self.wanted.own[b])
            _take(self.need[b], self.wanted.own[node])
            self.near[node].append(b)
            self.near[b].append(node)
        for b in new:
            self.touched[b] = True
            self.order.append(b)

    def _unset(self, node: int, chosen: Sequence[int], new: Sequence[int]) -> None:
        for b in reversed(chosen):
            self.near[node].pop()
            self.near[b].pop()
            self.need[node][self.wanted.own[b]] += 1
            self.need[b][self.wanted.own[node]] += 1
        for b in new:
            self.touched[b] = False
            self.order.pop()


FRESH = 2
"""Where taking a new node ranks among closing rings, see `_liking`."""


def _liking(size: int) -> int:
    return {6: 0, 5: 1}.get(size, 3 + abs(size - 6) if size < 10**6 else 10**6)


def _choose(groups: Sequence[Sequence[int]], count: int) -> Iterator[tuple[int, ...]]:
    """`count` members in all, the first ones of each group, earlier groups preferred."""
    if count == 0:
        yield ()
        return
    if sum(map(len, groups)) < count:
        return
    head, rest = groups[0], groups[1:]
    for taken in range(min(len(head), count), -1, -1):
        for others in _choose(rest, count - taken):
            yield (*head[:taken], *others)


def _take(need: Counter[int], colour: int) -> None:
    need[colour] -= 1
    if need[colour] == 0:
        del need[colour]
