"""How many examples can be read off a gradient, sheet by sheet, on the client's own truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from invertigo.guards.combinations import alone, alone_in_pairs, peeled
from invertigo.guards.groups import alone_in_groups
from invertigo.guards.sheets import Sheet

MOST = 2**24
"""Slopes of a sheet of which pairs of rows are compared."""
_KNOWN: WeakKeyDictionary[Sheet, tuple[Tensor, Tensor]] = WeakKeyDictionary()
"""Pairs that one reading has computed and another needs; they go when the sheet goes."""


@dataclass(frozen=True)
class Leak:
    """What the gradients of one sheet show. `count` is in examples' worth of content: a token is a part of one.

    `how` is `rows` (alone in a row), `pairs` or `groups` (of rows together), `peeling`, or `update` (read back). `rows`
    show these `examples`, the best with `decibels` at least.
    """

    sheet: Sheet
    how: str
    count: float
    examples: tuple[int, ...]
    of: int
    rows: tuple[int, ...]
    decibels: float = 20.0


def leaks(found: Iterable[Sheet], examples: int, epsilon: float) -> list[Leak]:
    """Every sheet's leaks."""
    told: list[Leak] = []
    for sheet in found:
        if sheet.matters:
            told += leaks_of(sheet, examples, epsilon)
    return told


def leaks_of(sheet: Sheet, examples: int, epsilon: float) -> list[Leak]:
    """Units alone in rows, in pairs and in groups of rows, and after peeling.

    Who has read all that a layer reads of an example knows what the layers behind it make of that, and can subtract it;
    a token or a patch alone does not tell.
    """
    single = alone(sheet.slopes)
    found = [leak(sheet, "rows", single.any(1), single.any(0), examples)]
    if sheet.plenty:
        pairs, _ = pairs_of(sheet, epsilon)
        units, rows = _marked(len(single), pairs[:, 0]), _marked(single.shape[1], pairs[:, 1:].flatten())
        found.append(leak(sheet, "pairs", units | single.any(1), rows | single.any(0), examples))
        units, rows = alone_in_groups(sheet.slopes, sheet.gates)
        found.append(leak(sheet, "groups", units | single.any(1), rows | single.any(0), examples))
    if sheet.coverage >= 1:
        found.append(leak(sheet, "peeling", peeled(sheet.slopes, epsilon), single.any(0), examples))
    return found


def pairs_of(sheet: Sheet, epsilon: float) -> tuple[Tensor, Tensor]:
    """`combinations.alone_in_pairs` of this sheet, computed once; nothing where there are too many."""
    if too_many(sheet) or not sheet.plenty:
        return torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, dtype=torch.float64)
    if sheet not in _KNOWN:
        _KNOWN[sheet] = alone_in_pairs(sheet.slopes, epsilon)
    return _KNOWN[sheet]


def too_many(sheet: Sheet) -> bool:
    """Pairs of its rows are not compared."""
    return sheet.plenty and sheet.slopes.numel() > MOST


def leak(sheet: Sheet, how: str, units: Tensor, rows: Tensor, examples: int, decibels: float = 20.0) -> Leak:
    """What these units and rows come to."""
    count = min(float(examples), float(units.sum()) * sheet.coverage)
    owners = sheet.owner.to(units.device)[units].unique().tolist()
    return Leak(sheet, how, count, tuple(owners), examples, tuple(rows.nonzero()[:, 0].tolist()), decibels)


def _marked(length: int, places: Tensor) -> Tensor:
    marked = torch.zeros(length, dtype=torch.bool, device=places.device)
    marked[places] = True
    return marked
