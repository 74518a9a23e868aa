"""Rows whose bias lies far below what their weights can make up for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from invertigo.guards.matrices import matrices
from invertigo.guards.nulls import at_least_one, row_tail_p
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.types import Finding, Gate, History, Local, Paper, Received


@register
@dataclass(frozen=True, kw_only=True)
class RowTails:
    r"""$z_k = -b_k \sqrt n / \|w_k\|$, row by row: how many typical inputs it takes to make row $k$ fire.

    Initialisation and gradient steps both give biases of the size of a typical weight, so |z| stays of the order of
    one; a row that fires for one example in B needs a z that grows with sqrt(n). The worst row of a layer is tested,
    not its median: an attacker who crafts a tenth of the rows leaves the median alone.

    Args:
        deviation: of z under an honest server. Trained layers that we measured stay within 2.5 of these.
        least: features from which a layer is tested.

    Source: the family of improbable weight structures (our reading); statistic and null are ours.
    """

    name: ClassVar[str] = "row_tails"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    deviation: float = 2.0
    least: int = 32

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        found = []
        for matrix in matrices(received, local):
            if matrix.head or matrix.convolution or matrix.bias is None or matrix.weight.shape[1] < self.least:
                continue
            # Dead rows (all zeros, as pruning leaves them) have no direction to be far in.
            norms = matrix.weight.norm(dim=1)
            live = norms > 1e-6 * norms.max()
            z = torch.where(live, -matrix.bias * matrix.weight.shape[1] ** 0.5 / norms.clamp_min(1e-30), 0.0)
            worst = float(z.max())
            p = at_least_one(row_tail_p(worst, self.deviation), len(z))
            rows = (z > 3 * self.deviation).nonzero()[:, 0].tolist()
            message = (
                f"A row of '{matrix.name}' has a bias {worst:.1f} typical weights below zero ({len(rows)} of {len(z)} "
                f"rows lie beyond {3 * self.deviation:.0f}): it fires for few examples only."
            )
            found.append(
                Finding(
                    self.name, self.gate, "malice", worst, p, message,
                    "Skip the round: rows that fire for single examples show them in their gradients.",
                    layer=matrix.name, rows=tuple(rows),
                )
            )  # fmt: skip
        return tuple(found)
