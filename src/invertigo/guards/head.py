"""Classifier heads that silence all examples but their target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from invertigo.attacks.active.fishing import PAPER
from invertigo.guards.matrices import Matrix, matrices
from invertigo.guards.nulls import at_least_one, small_row_p
from invertigo.guards.registry import register
from invertigo.types import Finding, Gate, History, Local, Paper, Received


@register
@dataclass(frozen=True, kw_only=True)
class HeadRows:
    """Some rows of the head are (nearly) zero and others are not, which no continuous law gives.

    A head that is zero altogether is an honest initialisation, and sends no gradient to the layers before it.

    Source: the signature of class and feature fishing (Wen et al. 2022); statistic and null are ours.
    """

    name: ClassVar[str] = "head_rows"
    paper: ClassVar[Paper] = PAPER
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        return tuple(self._one(m, local) for m in matrices(received, local) if m.head and len(m.weight) > 1)

    def _one(self, head: Matrix, local: Local) -> Finding:
        squares = head.weight.square().sum(1)
        largest = float(squares.max())
        ratio = float(squares.min()) / largest if largest > 0 else 1.0
        rows = (squares < 1e-2 * largest).nonzero()[:, 0].tolist()
        p = at_least_one(small_row_p(ratio, head.weight.shape[1]), len(squares))
        if "pruned" in local.declared.looks:
            p = 1.0
        message = (
            f"{len(rows)} of {len(squares)} rows of the head '{head.name}' are smaller than a tenth of its largest: "
            "all classes but a few are switched off."
        )
        action = "Skip the round: the gradient is left to the examples of the classes that are switched on."
        return Finding(
            self.name, self.gate, "malice", ratio**0.5, p, message, action, layer=head.name, rows=tuple(rows)
        )


@register
@dataclass(frozen=True, kw_only=True)
class HeadBias:
    r"""Range of the head's biases. A bias is a log-odds of a class: a range R says that one class is $e^{-R}$ times as
    frequent as another, and that is the p-value.

    Source: the signature of class and feature fishing (Wen et al. 2022); statistic and null are ours.
    """

    name: ClassVar[str] = "head_bias"
    paper: ClassVar[Paper] = PAPER
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        found = []
        for head in matrices(received, local):
            if not head.head or head.bias is None or len(head.bias) < 2:
                continue
            span = float(head.bias.max() - head.bias.min())
            low = int(head.bias.argmin())
            message = (
                f"The biases of the head '{head.name}' span {span:.3g}: class {low} would be e^-{span:.0f} times as "
                "frequent as another."
            )
            action = "Skip the round: biases like these silence every example but the target's."
            found.append(
                Finding(
                    self.name, self.gate, "malice", span, math.exp(-span), message, action, layer=head.name, rows=(low,)
                )
            )
        return tuple(found)
