"""Blocks of one step more than those at hand."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from invertigo.attacks.exact.grain.blocks import Check, Found, gathered, limit, slots
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.colours import Colours
from invertigo.attacks.exact.grain.linear_counts import countings
from invertigo.attacks.exact.grain.multisets import Slots, ways

FEW_WAYS = 4096
"""Ways to choose neighbours from which they are counted rather than gone through."""


def next_blocks(check: Check, before: Colours, budget: Budget) -> Colours:
    """Blocks of one step more: each neighbour's own block must name the centre's kind, and be of the kind named."""
    found: dict[int, Found] = {}
    searched: list[int] = []

    def unsolved() -> Iterator[tuple[int, list[Slots]]]:
        for centre, groups in around_each(check, before):
            solved = countings(check, centre, groups, budget) if check.linear and ways(groups) > FEW_WAYS else None
            if solved is None:
                searched.append(centre)
                yield centre, groups
            else:
                found[centre] = check.choose(centre, solved)

    made = check.search_all(unsolved(), budget)
    found.update(zip(searched, made))
    limit(sum(len(blocks) for blocks, _ in found.values()))
    return gathered(before, found)


def around_each(check: Check, before: Colours) -> Iterator[tuple[int, list[Slots]]]:
    """Every colour as a centre, with the colours that its neighbour slots may take; centres with none are left out."""
    by_kind: dict[tuple[int, int], list[int]] = defaultdict(list)
    for colour, (own, around) in enumerate(zip(before.own, before.around)):
        for named in set(around):
            by_kind[own, named].append(colour)
    anything = tuple(u for u in range(len(before)) if before.degrees[u] > 0)
    for centre in range(len(before)):
        if before.own:
            wanted = Counter(tuple(by_kind[named, before.own[centre]]) for named in before.around[centre])
        else:
            wanted = Counter({anything: before.degrees[centre]}) if before.degrees[centre] else Counter()
        if all(wanted):
            yield centre, slots(check, centre, wanted)
