"""Building blocks: a node with its neighbours, kept when what the next layer would read of it lies in the row space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.colours import Colours, mutual
from invertigo.attacks.exact.grain.mixing import Attended, Convolved, prepare
from invertigo.attacks.exact.grain.multisets import Slots, fillings, ways
from invertigo.attacks.exact.grain.nodes import TooMany
from invertigo.attacks.subspace import Subspace

MARGIN = 16
"""Hidden units beyond the rank that the first, cheap check looks at."""
COARSE = 4.0
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

    def first(self, centre: int, sums: Float[Tensor, "row part"]) -> torch.Tensor:
        """(row,) which sums pass the cheap check."""
        if self.coarse is None:
            return self.rows_pass(self.row(centre, sums))
        mixer, null, tolerance = self.coarse
        values = self.activation(mixer.finish(centre, sums))
        return (values @ null).square().sum(1) <= tolerance**2 * values.square().sum(1)

    def row(self, centre: int, sums: Float[Tensor, "row part"]) -> Float[Tensor, "row column"]:
        """The rows that the next layer reads."""
        values = self.activation(self.mixer.finish(centre, sums))
        if self.prefix is None:
            return values
        return torch.cat([self.prefix[centre].expand(len(values), -1), values], 1)

    def rows_pass(self, rows: Float[Tensor, "row column"]) -> Tensor:
        """(row,) which rows lie in the space."""
        if self.space.full:
            return torch.ones(len(rows), dtype=torch.bool)
        return self.space.distance(rows) <= self.tolerance

    def search(self, centre: int, groups: Sequence[Slots], budget: Budget) -> tuple[list[tuple[int, ...]], Tensor]:
        """The fillings of the slots around `centre` that pass, as sorted tuples of colours, with their rows."""
        number = ways(groups)
        if number > MOST_WAYS:
            raise TooMany(f"one node's neighbours can be chosen in {number:.1e} ways")
        found, rows = [], []
        for chosen, sums in fillings(groups, self.parts.parts(centre, torch.tensor([centre]))[0]):
            budget.spend(len(chosen))
            chosen = chosen[self.first(centre, sums)]
            if len(chosen):
                passed, made = self.choose(centre, chosen)
                found += passed
                rows.append(made)
        return found, torch.cat(rows) if rows else torch.zeros(0, 0, dtype=torch.float64)

    def choose(
        self, centre: int, chosen: Int[Tensor, "row slot"], *, sure: bool = False
    ) -> tuple[list[tuple[int, ...]], Tensor]:
        """Those of these neighbourhoods that pass the whole check (all of them if `sure`), with their rows."""
        joined = torch.cat([torch.full((len(chosen), 1), centre), chosen], 1)
        parts = self.mixer.parts(centre, joined.flatten())
        made = self.row(centre, parts.unflatten(0, joined.shape).sum(1))
        passed = torch.ones(len(made), dtype=torch.bool) if sure else self.rows_pass(made)
        width = 0 if self.prefix is None else self.prefix.shape[1]
        return [tuple(sorted(c)) for c in chosen[passed].tolist()], made[passed][:, width:]


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
    surviving blocks names. So nodes of low degree, which are cheap, rule out most neighbours of the dear ones.
    """
    order = sorted(range(len(kinds)), key=lambda c: kinds.degrees[c])
    names: dict[int, set[int]] = {}
    own, around, rows = [], [], []
    for centre in order:
        allowed = [u for u in range(len(kinds)) if kinds.degrees[u] > 0 and (u not in names or centre in names[u])]
        degree = kinds.degrees[centre]
        groups = slots(check, centre, Counter({tuple(allowed): degree})) if degree else []
        found, made = check.search(centre, groups, budget)
        names[centre] = {u for block in found for u in block}
        own += [centre] * len(found)
        around += found
        rows += [made] if found else []
        limit(len(own))
    return finished(kinds, own, around, rows)


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
