"""Building blocks: a node with its neighbours, kept when what the next layer would read of it lies in the row space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.colours import Colours, mutual
from invertigo.attacks.exact.grain.mixing import Attended, Convolved, prepare
from invertigo.attacks.exact.grain.multisets import CHUNK, Slots, fillings, ways
from invertigo.attacks.exact.grain.nodes import TooMany
from invertigo.attacks.subspace import Subspace

MARGIN = 16
"""Hidden units beyond the rank that the first, cheap check looks at."""
COARSE = 4.0
TOGETHER = 1 << 14
"""Candidates of one step that are checked before any of them rules others out."""
READ = 4096
"""Neighbourhoods whose rows are made at once, on all outputs of the layer."""
MOST_WAYS = 400_000_000
MOST_BLOCKS = 60_000


@dataclass(frozen=True)
class Check:
    """Whether a node's row lies in the row space: first on a few outputs of the layer, then on all of them.

    `rows(centre, z)` makes the row that the next layer reads from the layer's output `z`.
    """

    space: Subspace
    mixer: Convolved | Attended
    activation: Callable[[Tensor], Tensor]
    prefix: Float[Tensor, "colour column"] | None
    tolerance: float
    coarse: tuple[Convolved | Attended, Tensor, float] | None

    @classmethod
    def of(
        cls,
        space: Subspace,
        mixer: Convolved | Attended,
        width: int,
        activation: Callable[[Tensor], Tensor],
        prefix: Tensor | None,
        tolerance: float | None = None,
    ) -> Check:
        """Prepare both checks; `prefix` (colour, column) stands before the layer's output in the row."""
        count = min(space.rank + MARGIN, width)
        coarse = None
        if not space.full and count < width:
            ahead = 0 if prefix is None else prefix.shape[1]
            columns = torch.linspace(0, width - 1, count).round().long().unique()
            part = space.restricted(columns + ahead)
            if not part.full:
                loose = COARSE * max(part.tolerance, tolerance or space.tolerance)
                coarse = (mixer.only(columns), part.null.T, min(loose, 0.1))
        return cls(space, mixer, activation, prefix, tolerance or space.tolerance, coarse)

    @property
    def linear(self) -> bool:
        """The row is linear in how many neighbours have each colour."""
        return self.activation is _same and isinstance(self.mixer, Convolved) and not self.space.full

    @property
    def parts(self) -> Convolved | Attended:
        """The layer as the first check reads it."""
        return self.mixer if self.coarse is None else self.coarse[0]

    def first(self, centres: int | Int[Tensor, " row"], sums: Float[Tensor, "row part"]) -> torch.Tensor:
        """(row,) which sums, around one centre or one each, pass the cheap check."""
        if self.coarse is None:
            return self.rows_pass(self.row(centres, sums))
        mixer, null, tolerance = self.coarse
        values = self.activation(mixer.finish(centres, sums))
        return (values @ null).square().sum(1) <= tolerance**2 * values.square().sum(1)

    def row(self, centres: int | Int[Tensor, " row"], sums: Float[Tensor, "row part"]) -> Float[Tensor, "row column"]:
        """The rows that the next layer reads."""
        values = self.activation(self.mixer.finish(centres, sums))
        if self.prefix is None:
            return values
        return torch.cat([self.prefix[centres].expand(len(values), -1), values], 1)

    def rows_pass(self, rows: Float[Tensor, "row column"]) -> Tensor:
        """(row,) which rows lie in the space."""
        if self.space.full:
            return torch.ones(len(rows), dtype=torch.bool)
        return self.space.distance(rows) <= self.tolerance

    def search(self, centre: int, groups: Sequence[Slots], budget: Budget) -> Found:
        """The fillings of the slots around `centre` that pass, as sorted tuples of colours, with their rows."""
        return self.search_all([(centre, groups)], budget)[0]

    def search_all(self, wanted: Iterable[tuple[int, Sequence[Slots]]], budget: Budget) -> list[Found]:
        """The same for several centres, whose candidates are checked together. Raises: TooMany, OutOfBudget."""
        found, held = [], _Held(self, budget)
        for centre, groups in wanted:
            number = ways(groups)
            if number > MOST_WAYS:
                raise TooMany(f"one node's neighbours can be chosen in {number:.1e} ways")
            found.append(([], []))
            for chosen, sums in fillings(groups, self.parts.parts(centre, torch.tensor([centre]))[0]):
                held.add(centre, chosen, sums, found[-1])
        held.check()
        return [(blocks, torch.cat(rows) if rows else NO_ROWS) for blocks, rows in found]

    def choose(self, centre: int, chosen: Int[Tensor, "row slot"], *, sure: bool = False) -> Found:
        """Those of these neighbourhoods that pass the whole check (all of them if `sure`), with their rows."""
        made = self.read([centre] * len(chosen), chosen.tolist())
        passed = torch.ones(len(made), dtype=torch.bool) if sure else self.rows_pass(made)
        return [tuple(sorted(c)) for c in chosen[passed].tolist()], self.hidden(made[passed])

    def read(self, centres: Sequence[int], around: Sequence[Sequence[int]]) -> Float[Tensor, "row column"]:
        """The row of each centre with these neighbours."""
        made = [self._read(centres[k : k + READ], around[k : k + READ]) for k in range(0, len(centres), READ)]
        return torch.cat(made) if made else self._read((), ())

    def _read(self, centres: Sequence[int], around: Sequence[Sequence[int]]) -> Tensor:
        which = torch.arange(len(centres)).repeat_interleave(torch.tensor([1 + len(near) for near in around]).long())
        joined = torch.tensor([c for centre, near in zip(centres, around) for c in (centre, *near)], dtype=torch.long)
        own = torch.tensor(centres, dtype=torch.long)
        parts = self.mixer.parts(own[which], joined)
        return self.row(own, parts.new_zeros(len(centres), parts.shape[1]).index_add_(0, which, parts))

    def hidden(self, rows: Float[Tensor, "row column"]) -> Float[Tensor, "row unit"]:
        """The layer's own output in these rows, without what stands before it."""
        return rows if self.prefix is None else rows[:, self.prefix.shape[1] :]


Found = tuple[list[tuple[int, ...]], Tensor]
NO_ROWS = torch.zeros(0, 0, dtype=torch.float64)


@dataclass
class _Held:
    """Candidates around several centres that wait to be checked together."""

    check_of: Check
    budget: Budget
    centres: list[int] = field(default_factory=list)
    chosen: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    goals: list[tuple[list[tuple[int, ...]], list[Tensor]]] = field(default_factory=list)
    size: int = 0
    found: int = 0

    def add(self, centre: int, chosen: Tensor, sums: Tensor, goal: tuple[list[tuple[int, ...]], list[Tensor]]) -> None:
        """Hold candidates around `centre`; those that pass will be noted in `goal`."""
        self.budget.spend(len(chosen))
        self.centres.append(centre)
        self.chosen.append(chosen)
        self.sums.append(sums)
        self.goals.append(goal)
        self.size += len(chosen)
        if self.size >= CHUNK:
            self.check()

    def check(self) -> None:
        """Check all that are held."""
        if not self.size:
            return
        counts = torch.tensor([len(chosen) for chosen in self.chosen])
        places = torch.arange(len(counts)).repeat_interleave(counts)
        passed = self.check_of.first(torch.tensor(self.centres)[places], torch.cat(self.sums))
        near = [
            row
            for chosen, some in zip(self.chosen, passed.split(counts.tolist()))
            for row in (chosen[some].tolist() if bool(some.any()) else ())
        ]
        places = places[passed]
        for start in range(0, len(near), READ):
            self.budget.spend()
            self._read(places[start : start + READ], near[start : start + READ])
        self.centres, self.chosen, self.sums, self.goals, self.size = [], [], [], [], 0

    def _read(self, places: Tensor, near: list[list[int]]) -> None:
        """Check those that passed the first check on all outputs of the layer, and note those that pass again."""
        rows = self.check_of.read([self.centres[place] for place in places.tolist()], near)
        right = self.check_of.rows_pass(rows)
        goals, sizes = places[right].unique_consecutive(return_counts=True)
        blocks = iter([tuple(sorted(row)) for row, fits in zip(near, right.tolist()) if fits])
        for goal, some in zip(goals.tolist(), self.check_of.hidden(rows)[right].split(sizes.tolist())):
            self.goals[goal][0].extend(islice(blocks, len(some)))
            self.goals[goal][1].append(some)
        self.found += int(right.sum())
        limit(self.found)


def slots(check: Check, centre: int, around: Counter[tuple[int, ...]]) -> list[Slots]:
    """Groups of alike slots, from the options of each and how many slots have them."""
    made = []
    for options, count in around.items():
        colours = torch.tensor(options, dtype=torch.long)
        made.append(Slots(colours, check.parts.parts(centre, colours), count))
    return made


def first_blocks(check: Check, kinds: Colours, budget: Budget) -> Colours:
    """Blocks of one step, centres in order of their degree.

    Edges go both ways: a kind that has been a centre already may be a neighbour only of kinds that one of its own
    surviving blocks names. So nodes of low degree, which are cheap, rule out most neighbours of the dear ones. Centres
    with few candidates are checked together.
    """
    order = sorted(range(len(kinds)), key=lambda c: kinds.degrees[c])
    names: dict[int, set[int]] = {}
    own, around, rows = [], [], []
    waiting: list[tuple[int, list[Slots]]] = []

    def choices(centre: int) -> list[Slots]:
        allowed = [u for u in range(len(kinds)) if kinds.degrees[u] > 0 and (u not in names or centre in names[u])]
        degree = kinds.degrees[centre]
        return slots(check, centre, Counter({tuple(allowed): degree})) if degree else []

    def search() -> None:
        for (centre, _), (found, made) in zip(waiting, check.search_all(waiting, budget)):
            names[centre] = {u for block in found for u in block}
            own.extend([centre] * len(found))
            around.extend(found)
            rows.extend([made] if found else [])
        waiting.clear()
        limit(len(own))

    held = 0
    for centre in order:
        groups = choices(centre)
        if waiting and held + ways(groups) > TOGETHER:
            search()
            groups, held = choices(centre), 0
        waiting.append((centre, groups))
        held += ways(groups)
    search()
    return finished(kinds, own, around, rows)


def gathered(before: Colours, found: Mapping[int, Found]) -> Colours:
    """The colours that name each other, of the blocks found around each centre."""
    held = sorted((centre, blocks) for centre, blocks in found.items() if blocks[0])
    own = [centre for centre, (blocks, _) in held for _ in blocks]
    around = [block for _, (blocks, _) in held for block in blocks]
    return finished(before, own, around, [rows for _, (_, rows) in held])


def finished(before: Colours, own: list[int], around: list[tuple[int, ...]], rows: list[Tensor]) -> Colours:
    """The colours that name each other, once each."""
    kept = mutual(own, around)
    made = Colours(
        torch.cat(rows) if rows else before.rows.new_zeros(0, 0),
        tuple(before.degrees[o] for o in own),
        tuple(before.kinds[o] for o in own),
        tuple(own),
        tuple(around),
    )
    return made.select(kept)


def check_of(anatomy: Anatomy, layer: int, before: Colours, features: Tensor, tolerance: float | None = None) -> Check:
    """The check of what layer `layer` (from 0) makes of colours `before`; `features` are those of the kinds."""
    model = anatomy.model
    last = layer == anatomy.depth - 1
    prefix = features[list(before.kinds)] if last and model.concatenate else None
    mixer = prepare(model.message_layers[layer], before)
    width = mixer.skipped.shape[1] if isinstance(mixer, Attended) else mixer.scaled.shape[1]
    return Check.of(anatomy.spans[layer + 1], mixer, width, _same if last else model.activation, prefix, tolerance)


def _same(values: Tensor) -> Tensor:
    return values


def limit(count: int) -> None:
    """Raises: TooMany."""
    if count > MOST_BLOCKS:
        raise TooMany(f"more than {MOST_BLOCKS} neighbourhoods fit the row space")
