"""How many nodes a graph may have whose colours have given shares: multiples of the fewest, each decided by degrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.degree_sequences import realisable
from invertigo.attacks.exact.grain.realisation import Wanted, instances

Options = Callable[[int], tuple[Sequence[Sequence[int]], bool]]
"""Of that many times the smallest counts, the possible counts of each colour, and whether these are all."""
MOST_FOLD = 6
"""Multiples, from the first that has a graph, among which a plausible one is looked for."""


@dataclass(frozen=True)
class Bounds:
    """What is known of a graph's size, and how far graphs are listed.

    Args:
        least, most: nodes of a graph, as far as the adversary knows.
        reach: nodes of the largest graphs that are listed where the domain has no room for the smallest one.
        members: graphs at which listing stops.
        seconds: CPU seconds for each way of listing.
    """

    least: int
    most: int
    reach: int
    members: int
    seconds: float


@dataclass
class Sizes:
    """The multiples of the smallest counts that some graph has, connected or not.

    Colour `c` is known to its neighbours as `own[c]` and wants neighbours known as `around[c]`.
    """

    own: Sequence[int]
    around: Sequence[tuple[int, ...]]
    options: Options
    bounds: Bounds
    budget: Budget
    _known: dict[int, tuple[list[Wanted], bool]] = field(default_factory=dict)

    @cached_property
    def unit(self) -> int:
        """The fewest nodes with these shares, whether a graph has them or not."""
        return max(sum(next(iter(self.options(1)[0]), ())), 1)

    def wanted(self, fold: int) -> tuple[list[Wanted], bool]:
        """Each way to make up so many times the smallest counts that some graph has, and whether these are all.

        Raises: OutOfBudget.
        """
        if fold not in self._known:
            self.budget.spend()
            options, every = self.options(fold)
            made = (instances(self.own, self.around, counts) for counts in options)
            self._known[fold] = [wanted for wanted in made if realisable(wanted)], every
        return self._known[fold]

    def folds(self) -> range:
        """The multiples of the size that the domain allows."""
        return range(-(-self.bounds.least // self.unit), self.bounds.most // self.unit + 1)

    def likely(self) -> Iterator[int]:
        """The smallest multiples that some graph has; beyond the domain's room only if none is within it."""
        within = [fold for fold in self.folds() if fold]
        beyond = range(self.bounds.most // self.unit + 1, self.bounds.reach // self.unit + 1)
        tried = 0
        for fold in (*within, *beyond):
            if tried and (tried == MOST_FOLD or fold in beyond):
                return
            ways, _ = self.wanted(fold)
            if ways or tried:
                tried += 1
                yield fold


def multiples_of(counts: Sequence[Sequence[int]]) -> Options:
    """The same multiple of each of these counts."""
    return lambda fold: ([[fold * count for count in way] for way in counts], True)
