"""The update that is about to leave: how large it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from invertigo.guards.divergence import unless_diverged
from invertigo.guards.nulls import predictive_p
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.types import Finding, Gate, History, Local, Paper, Received


@register
@dataclass(frozen=True, kw_only=True)
class UpdateJump:
    """Logarithm of the update's length against its values in the client's clean rounds (predictive t-test).

    Args:
        floor: deviation of the logarithm that is allowed for before there are rounds to learn it from.

    Source: the family of anomalous gradient dynamics (our reading); the test is ours.
    """

    name: ClassVar[str] = "update_jump"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = frozenset({"update"})

    floor: float = 0.7

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        if local.update is None:
            return ()
        figure = math.log(max(local.update.norm, 1e-30))
        past = history.clean(self.name)
        p = predictive_p(past, figure, floor=self.floor) if past else None
        message = f"The update's length is {math.exp(figure):.3g}" + (
            f", {math.exp(figure - past[-1][1]):.3g} times that of round {past[-1][0]}." if past else "."
        )
        action = "Do not send it; the model makes some example's gradient dominate."
        found = Finding(self.name, self.gate, "malice", figure, p, message, action)
        return (unless_diverged(found, received, local) if local.batch is not None else found,)
