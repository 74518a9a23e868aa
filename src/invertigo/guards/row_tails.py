"""Rows whose bias lies far below what their weights can make up for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.guards.matrices import matrices
from invertigo.guards.nulls import at_least_one, row_tail_p
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.types import Finding, Gate, History, Local, Paper, Received

DEAD = 0.8
"""Share of a layer's rows that are silent on the whole probe, from which it is a matter of divergence."""


@register
@dataclass(frozen=True, kw_only=True)
class RowTails:
    r"""$z_k = -b_k \sqrt n / \|w_k\|$, row by row: how many typical inputs it takes to make row $k$ fire.

    Initialisation and gradient steps both give biases of the size of a typical weight, so |z| stays of the order of
    one; a row that fires for one example in B needs a z that grows with sqrt(n). The worst row of a layer is tested,
    not its median: an attacker who crafts a tenth of the rows leaves the median alone.

    Args:
        scale: the deviation of z under an honest server is `scale` times n^(1/4): training adds what the inputs have in
            common, which would grow as sqrt(n) if all features were alike and not at all if they were independent.
            Trained layers that we measured stay within 2.6 deviations.
        least: features from which a layer is tested.

    Source: the family of improbable weight structures (our reading); statistic and null are ours.
    """

    name: ClassVar[str] = "row_tails"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    scale: float = 0.3
    least: int = 32

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        found = []
        for matrix in matrices(received, local):
            if matrix.head or matrix.convolution or matrix.bias is None or matrix.weight.shape[1] < self.least:
                continue
            # Dead rows have no direction to be far in; of pruned rows, what is left counts. No row is too small.
            size = matrix.weight.abs().amax(1, keepdim=True)
            norms = size[:, 0] * (matrix.weight / size.clamp_min(torch.finfo(size.dtype).tiny)).norm(dim=1)
            counts = (matrix.weight != 0).sum(1).to(norms)
            live = (norms > 0) & (counts >= self.least)
            fires = _fires(matrix.name, local)
            # A row that no example of the probe fires shows none; a layer full of them is what divergence leaves.
            live = live if fires is None else live & fires.to(live.device)
            if not bool(live.any()):
                continue
            dead = 0.0 if fires is None else float((~fires).double().mean())
            features = matrix.weight.shape[1]
            z = torch.where(live, -matrix.bias / (norms / counts.clamp_min(1).sqrt()), 0.0).nan_to_num(0.0, 1e30, -1e30)
            worst, deviation = float(z.max()), self.scale * features**0.25
            p = at_least_one(row_tail_p(worst, deviation), len(z))
            rows = (z > 4 * deviation).nonzero()[:, 0].tolist()
            message = (
                f"A row of '{matrix.name}' has a bias {worst:.1f} typical weights below zero ({len(rows)} of {len(z)} "
                f"rows lie beyond {4 * deviation:.1f}): it fires for few examples only."
            )
            found.append(
                Finding(
                    self.name, self.gate, "divergence" if dead >= DEAD else "malice", worst, p, message,
                    "Skip the round: rows that fire for single examples show them in their gradients.",
                    layer=matrix.name, rows=tuple(rows),
                )
            )  # fmt: skip
        return tuple(found)


def _fires(layer: str, local: Local) -> Tensor | None:
    """(row,) which rows pass a gradient of some example of the probe on; None where there is no probe."""
    signal = None if local.signals is None else local.signals.layers.get(layer)
    return None if signal is None else (signal.slopes.reshape(-1, signal.slopes.shape[-1]) != 0).any(0)
