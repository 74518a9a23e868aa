"""Blocks of one step among nodes that are hardly ever alike: edges are known from either end."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import comb

import torch

from invertigo.attacks.exact.grain.blocks import NO_ROWS, Check, Found, gathered, limit
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.colours import Colours
from invertigo.attacks.exact.grain.multisets import Slots, fillings
from invertigo.attacks.exact.grain.nodes import TooMany
from invertigo.attacks.exact.grain.singular import off_the_space

MOST_WAYS = 20_000_000
"""A kind with more ways to choose its neighbours waits for its neighbours to tell."""
MOST_UNCHECKED = 64
"""Ways that are all kept for a kind whose blocks no row space shows."""
MOST_COMPARED = 300_000
"""Ways whose directions off the row space are compared."""


def told_blocks(
    check: Check,
    kinds: Colours,
    budget: Budget,
    *,
    repeated: bool = False,
    hidden: bool = False,
    doubting: bool = False,
) -> Colours:
    """Blocks of one step where every kind is one node, or with `repeated` nearly every kind.

    A kind that all blocks of a neighbour name is a neighbour; one that none of its blocks name is not. The centre with
    the fewest ways left is next, so that a hub is read off its neighbours rather than searched for. With `hidden` a
    singular adjacency may keep blocks off the row space: kinds that show none are left to what the others tell.
    With `doubting` so are those whose row in the space may be a neighbour's, which has the same closed neighbourhood.

    Raises: OutOfBudget, TooMany.
    """
    told, left = _Told(check, kinds, repeated), set(range(len(kinds)))
    silent: set[int] = set()
    while left:
        budget.spend()
        centre = min(left, key=lambda c: (told.ways(c), c))
        left.remove(centre)
        number = told.ways(centre)
        if number > MOST_WAYS and not hidden:
            raise TooMany(f"the neighbours of one node can be chosen in {number:.1e} ways")
        found = told.search(centre, budget) if number <= MOST_WAYS else NOTHING
        if number and hidden and (not found[0] or (doubting and told.doubtful(centre, found))):
            silent.add(centre)
        else:
            told.learn(centre, found)
    _speak_for(told, silent, budget)
    return gathered(kinds, told.blocks)


def _speak_for(told: _Told, silent: set[int], budget: Budget) -> None:
    """Blocks of the kinds that show none: all that are left where they are few, for the next layer to choose from.

    Where they are many, those that miss the row space in the direction of another kind's.
    """
    while silent:
        budget.spend()
        few = [centre for centre in silent if told.ways(centre) <= MOST_UNCHECKED]
        found = {centre: told.unchecked(centre) for centre in few} or told.parallel(silent, budget)
        if not found:
            raise TooMany(f"a singular adjacency keeps the neighbourhoods of {len(silent)} nodes off the row space")
        for centre, blocks in found.items():
            silent.remove(centre)
            told.learn(centre, blocks)


NOTHING: Found = ([], NO_ROWS)


@dataclass
class _Told:
    """The blocks found so far, by kind, with the neighbours that all of them and that any of them name."""

    check: Check
    kinds: Colours
    repeated: bool
    blocks: dict[int, Found] = field(default_factory=dict)
    always: dict[int, set[int]] = field(default_factory=dict)
    ever: dict[int, set[int]] = field(default_factory=dict)

    def learn(self, centre: int, found: Found) -> None:
        """Note the blocks of a kind; none means that it is no node of the graph. Raises: TooMany."""
        named = [set(block) for block in found[0]]
        self.blocks[centre] = found
        self.always[centre] = set.intersection(*named) if named else set()
        self.ever[centre] = set().union(*named)
        limit(sum(len(blocks) for blocks, _ in self.blocks.values()))

    def about(self, centre: int) -> tuple[list[int], list[int]]:
        """The kinds that are neighbours for sure, and those that may be."""
        surest = [u for u, named in self.always.items() if centre in named]
        open_ = [
            u
            for u in range(len(self.kinds))
            if u not in (centre, *surest) and self.kinds.degrees[u] and (u not in self.ever or centre in self.ever[u])
        ]
        return surest, open_

    def ways(self, centre: int) -> int:
        """Number of ways to choose the neighbours that are not sure."""
        surest, open_ = self.about(centre)
        free = self.kinds.degrees[centre] - len(surest)
        if free <= 0:
            return int(free == 0)
        return comb(len(open_) + len(surest) + free, free) if self.repeated else comb(len(open_), free)

    def slots(self, centre: int, trusting: bool = True) -> list[Slots]:
        """The slots of its neighbours. Where kinds may repeat, another of its kind or of a sure one may be there."""
        surest, open_ = self.about(centre)
        sure = len(surest) if trusting else 0
        again = [centre, *surest] if self.repeated else []
        groups = [
            self._group(centre, surest, sure, distinct=True),
            self._group(centre, [*open_, *again], self.kinds.degrees[centre] - sure, distinct=not self.repeated),
        ]
        return [group for group in groups if group.count]

    def _group(self, centre: int, options: list[int], count: int, *, distinct: bool) -> Slots:
        colours = torch.tensor(options, dtype=torch.long)
        return Slots(colours, self.check.parts.parts(centre, colours), count, distinct)

    def doubtful(self, centre: int, found: Found) -> bool:
        """A neighbour of the same degree may have the same closed neighbourhood, and with it the same row."""
        return any(self.kinds.degrees[b] == self.kinds.degrees[centre] for block in found[0] for b in block)

    def search(self, centre: int, budget: Budget) -> Found:
        """Blocks in the row space. One of several nodes of a kind may lack a neighbour that another one has."""
        if not self.ways(centre):
            return NOTHING
        found = self.check.search(centre, self.slots(centre), budget)
        if found[0] or not self.repeated or not self.about(centre)[0]:
            return found
        doubted = self.slots(centre, trusting=False)
        few = sum(group.ways for group in doubted) <= MOST_WAYS
        return self.check.search(centre, doubted, budget) if few else found

    def parallel(self, silent: set[int], budget: Budget) -> dict[int, Found]:
        """Of these kinds, those with blocks that miss the row space in the direction of another's."""
        few = [centre for centre in sorted(silent) if 0 < self.ways(centre) <= MOST_COMPARED]
        own, chosen, rows = off_the_space(self.check, [(c, self.slots(c)) for c in few], budget)
        made = {}
        for centre in set(own):
            places = [place for place, other in enumerate(own) if other == centre]
            made[centre] = [chosen[p] for p in places], torch.cat([rows[p] for p in places])
        return made

    def unchecked(self, centre: int) -> Found:
        """All blocks that the others leave it."""
        if not self.ways(centre):
            return NOTHING
        base = self.check.parts.parts(centre, torch.tensor([centre]))[0]
        chosen = torch.cat([chosen for chosen, _ in fillings(self.slots(centre), base)])
        return self.check.choose(centre, chosen, sure=True)
