"""Rows with exactly as many negative as positive weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from invertigo.guards.matrices import matrices
from invertigo.guards.nulls import independent_rows, sign_balance_p
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.types import Finding, Gate, History, Local, Paper, Received


@register
@dataclass(frozen=True, kw_only=True)
class SignBalance:
    """Trap weights make half of a row negative on purpose; by chance, the number of negative weights is binomial.

    Exact zeros do not count, so pruned layers keep the null law; correlations between trained rows do.

    Args:
        least: rows and weights a row from which a layer is tested.
        most: rows whose correlations are taken; those of larger layers are taken for alike.

    Source: the family of improbable weight structures (our reading); the binomial null is ours.
    """

    name: ClassVar[str] = "sign_balance"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    least: int = 8
    most: int = 256

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        found = []
        for matrix in matrices(received, local):
            if min(matrix.weight.shape) < self.least:
                continue
            negatives = (matrix.weight < 0).sum(1).cpu().numpy().astype(float)
            counts = (matrix.weight != 0).sum(1).cpu().numpy().astype(float)
            signs = matrix.weight[: self.most].sign().cpu().numpy().astype(float)
            p = sign_balance_p(negatives, counts, independent_rows(signs))
            exact = np.flatnonzero((counts > 0) & (np.abs(negatives - counts / 2) < 0.75))
            statistic = float(np.mean((negatives - counts / 2) ** 2 / np.maximum(counts / 4, 1)))
            message = (
                f"{len(exact)} of {len(counts)} rows of '{matrix.name}' have as many negative as positive weights; the "
                f"counts vary {statistic:.2g} times as much as coin tosses."
            )
            found.append(
                Finding(
                    self.name, self.gate, "malice", statistic, p, message,
                    "Skip the round: rows balanced like this fire for single examples (trap weights).",
                    layer=matrix.name, rows=tuple(map(int, exact)),
                )
            )  # fmt: skip
        return tuple(found)
