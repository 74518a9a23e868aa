"""Rows that measure the same thing, and layers all of whose rows do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.guards.matrices import Matrix, matrices
from invertigo.guards.nulls import at_least_one, cosine_tail, one_direction_p, pairs_p
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.types import Finding, Gate, History, Local, Paper, Received

LEAST_WEIGHTS = 16
"""Weights that are not zero, from which a row's direction is compared."""
ACTION = "Skip the round: rows that differ in their bias only sort the batch into bins (imprint)."


@register
@dataclass(frozen=True, kw_only=True)
class DuplicateRows:
    """Pairs of rows in the same direction, against random directions in 16 dimensions.

    Binning attacks repeat one measurement in every row, and give the next layer constant columns, so that differences
    of neighbouring rows hold one bin alone. The message says whether the next layer does that.

    Args:
        cosine: from which two rows count as alike; noise of a fifth of a row's size leaves 0.96.
        least: features from which a layer is tested.
        most: rows that are compared; of larger layers, this many evenly spread ones.

    Source: the family of improbable weight structures (our reading); the random-cosine null is ours.
    """

    name: ClassVar[str] = "duplicate_rows"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    cosine: float = 0.95
    least: int = 16
    most: int = 4096

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        return tuple(
            self._one(matrix)
            for matrix in matrices(received, local)
            if matrix.weight.shape[1] >= self.least and len(matrix.weight) > 1
        )

    def _one(self, matrix: Matrix) -> Finding:
        kept, unit = unit_rows(matrix.weight, self.most)
        alike = (unit @ unit.T).abs().fill_diagonal_(0) >= self.cosine
        # A row counts once, however many others it equals.
        rows = kept[alike.any(1)].tolist()
        pairs = len(unit) * (len(unit) - 1) // 2
        p = pairs_p(len(rows) // 2, pairs, cosine_tail(self.cosine, matrix.weight.shape[1]))
        message = f"{len(rows)} of {len(unit)} rows of '{matrix.name}' point where another one points."
        if matrix.reader is not None and len(rows) > 1:
            columns = matrix.reader[:, rows]
            spread = float((columns - columns.mean(1, keepdim=True)).norm() / columns.norm().clamp_min(1e-30))
            if spread < 0.3:
                message += " The next layer reads them all alike (constant columns), so their differences isolate bins."
        share = len(rows) / max(len(unit), 1)
        return Finding(self.name, self.gate, "malice", share, p, message, ACTION, layer=matrix.name, rows=tuple(rows))


@register
@dataclass(frozen=True, kw_only=True)
class OneDirection:
    """Mean squared cosine of a layer's rows with their best common direction: close to one for noisy measurements too.

    Args:
        least: rows and features from which a layer is tested.
        most: rows that are compared; of larger layers, this many evenly spread ones.

    Source: the family of improbable weight structures (our reading); Hoeffding's bound is our null.
    """

    name: ClassVar[str] = "one_direction"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    least: int = 16
    most: int = 4096

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        found = []
        for matrix in matrices(received, local):
            if min(matrix.weight.shape) < self.least:
                continue
            _, unit = unit_rows(matrix.weight, self.most)
            energy = common_energy(unit)
            message = f"The rows of '{matrix.name}' share {energy:.0%} of their energy in one direction."
            p = at_least_one(one_direction_p(energy, len(unit)), 1)
            found.append(Finding(self.name, self.gate, "malice", energy, p, message, ACTION, layer=matrix.name))
        return tuple(found)


def unit_rows(weight: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Positions of rows that have a direction, at most `most` evenly spread ones, and these rows at unit length."""
    largest = weight.abs().amax(1)
    # Rows of a few weights, as pruning leaves them, have few directions to point in.
    kept = ((largest > 0) & ((weight != 0).sum(1) >= min(LEAST_WEIGHTS, weight.shape[1]))).nonzero()[:, 0]
    if len(kept) > most:
        kept = kept[torch.linspace(0, len(kept) - 1, most, device=kept.device).long()]
    # Divided by their largest entries first, so that no square of a tiny row is lost.
    rows = weight[kept] / largest[kept, None]
    return kept, rows / rows.norm(dim=1, keepdim=True)


def common_energy(unit: Tensor) -> float:
    """Largest eigenvalue of the rows' Gram matrix over their number, by power iteration."""
    if len(unit) == 0:
        return 0.0
    # Started at the row with most in common with all others, which no eigenvector of interest is orthogonal to.
    vector = unit[int((unit @ unit.sum(0)).abs().argmax())]
    for _ in range(30):
        vector = unit.T @ (unit @ vector)
        vector = vector / vector.norm().clamp_min(1e-30)
    return float((unit @ vector).square().mean())
