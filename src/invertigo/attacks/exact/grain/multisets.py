"""All ways to fill a node's neighbour slots, with the sums that a layer takes over them, in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 16
FEW = 512
"""Ways of which the places are remembered, since the same numbers of options and slots come again and again."""
LARGEST_TABLE = 8_000_000
"""Numbers in a table of partial sums that is kept whole."""


@dataclass(frozen=True)
class Slots:
    """`count` alike slots that take a multiset of `options` (colours), whose parts in the sum are `parts`.

    With `distinct`, no option is taken twice.
    """

    options: Int[Tensor, " option"]
    parts: Float[Tensor, "option part"]
    count: int
    distinct: bool = False

    @property
    def ways(self) -> int:
        """Number of multisets (or sets)."""
        if self.distinct:
            return comb(len(self.options), self.count)
        return comb(len(self.options) + self.count - 1, self.count)


Filled = tuple[Tensor, Tensor]
"""Colours chosen (row, slot) and the sums of their parts (row, part)."""


def ways(groups: Sequence[Slots]) -> int:
    """Number of ways to fill all groups of slots."""
    return prod(group.ways for group in groups)


def fillings(groups: Sequence[Slots], base: Float[Tensor, " part"]) -> Iterator[Filled]:
    """Every way to fill the groups of slots: the colours chosen, and `base` plus the sum of their parts.

    Colours of one group come in ascending order of their place in `options`, so no multiset comes twice.
    """
    if not groups:
        yield torch.zeros(1, 0, dtype=torch.long), base[None]
        return
    if len(groups) == 1:
        for chosen, sums in _multisets(groups[0], groups[0].count):
            yield chosen, sums + base
        return
    largest = max(range(len(groups)), key=lambda g: groups[g].ways)
    if _too_large(groups[largest], groups[largest].ways):
        yield from _one_by_one(groups, largest, base)
        return
    tables = [_table(group, group.count) for group in groups]
    total = prod(len(chosen) for chosen, _ in tables)
    for start in range(0, total, CHUNK):
        left = torch.arange(start, min(start + CHUNK, total))
        picked, sums = [], base.expand(len(left), -1)
        for chosen, partial in tables:
            at, left = left % len(chosen), left // len(chosen)
            picked.append(chosen[at])
            sums = sums + partial[at]
        yield torch.cat(picked, 1), sums


def _too_large(group: Slots, rows: int) -> bool:
    return rows * (group.parts.shape[1] + group.count) > LARGEST_TABLE


def _one_by_one(groups: Sequence[Slots], largest: int, base: Tensor) -> Iterator[Filled]:
    """Fillings with one group whose ways are too many for a table: each chunk of them with all ways of the others."""
    others = [group for number, group in enumerate(groups) if number != largest]
    for chosen, sums in _multisets(groups[largest], groups[largest].count):
        for rest, added in fillings(others, base):
            for start in range(0, len(chosen), max(CHUNK // max(len(rest), 1), 1)):
                some = slice(start, start + max(CHUNK // max(len(rest), 1), 1))
                picked = chosen[some].repeat_interleave(len(rest), 0), rest.repeat(len(chosen[some]), 1)
                joined = sums[some].repeat_interleave(len(rest), 0) + added.repeat(len(chosen[some]), 1)
                yield torch.cat(picked, 1), joined


def _by_lead(group: Slots, count: int) -> Iterator[Filled]:
    """Multisets by their first member, whose others are multisets of the options from there on."""
    for lead in range(len(group.options)):
        start = lead + int(group.distinct)
        rest = Slots(group.options[start:], group.parts[start:], count - 1, group.distinct)
        for chosen, sums in _multisets(rest, count - 1):
            first = group.options[lead].expand(len(chosen), 1)
            yield torch.cat([first, chosen], 1), sums + group.parts[lead]


def _multisets(group: Slots, count: int) -> Iterator[Filled]:
    if count == 1 or group.ways <= CHUNK:
        yield _table(group, count)
        return
    if _too_large(group, Slots(group.options, group.parts, count - 1, group.distinct).ways):
        yield from _by_lead(group, count)
        return
    places, parts = _places(group, count - 1)
    leads = torch.arange(len(group.options)) + int(group.distinct)
    first = torch.searchsorted(places[:, 0].contiguous(), leads)
    held: list[Filled] = []
    size = 0
    for lead in range(len(group.options)):
        start = int(first[lead])
        rest = places[start:]
        held.append((torch.cat([torch.full((len(rest), 1), lead), rest], 1), parts[start:] + group.parts[lead]))
        size += len(rest)
        if size >= CHUNK:
            yield _joined(group, held)
            held, size = [], 0
    if held:
        yield _joined(group, held)


def _joined(group: Slots, held: list[Filled]) -> Filled:
    return group.options[torch.cat([chosen for chosen, _ in held])], torch.cat([sums for _, sums in held])


def _table(group: Slots, count: int) -> Filled:
    places, sums = _places(group, count)
    return group.options[places], sums


def _places(group: Slots, count: int) -> Filled:
    """All ascending tuples of places, in lexicographic order, with their sums."""
    size = len(group.options)
    if size == 0 or count == 0:
        rows = 1 if count == 0 else 0
        return torch.zeros(rows, count, dtype=torch.long), group.parts.new_zeros(rows, group.parts.shape[1])
    if Slots(group.options, group.parts, count, group.distinct).ways <= FEW:
        places = _few_places(size, count, group.distinct)
        return places, group.parts[places].sum(1)
    places = torch.arange(size)[:, None]
    sums = group.parts
    for _ in range(count - 1):
        index, ends = _continued(places[:, -1], size, group.distinct)
        places = torch.cat([places[index], ends[:, None]], 1)
        sums = sums[index] + group.parts[ends]
    return places, sums


@lru_cache(maxsize=256)
def _few_places(size: int, count: int, distinct: bool) -> Int[Tensor, "row place"]:
    places = torch.arange(size)[:, None]
    for _ in range(count - 1):
        index, ends = _continued(places[:, -1], size, distinct)
        places = torch.cat([places[index], ends[:, None]], 1)
    return places


def _continued(last: Int[Tensor, " row"], size: int, distinct: bool) -> tuple[Tensor, Tensor]:
    """Which tuple each longer one starts with, and its next place: the last one (or, in a set, one more) or later."""
    start = last + int(distinct)
    repeats = size - start
    index = torch.arange(len(last)).repeat_interleave(repeats)
    return index, torch.arange(len(index)) - (repeats.cumsum(0) - repeats)[index] + start[index]
