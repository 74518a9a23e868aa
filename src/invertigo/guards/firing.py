"""How many examples make each row fire."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from invertigo.guards.nulls import at_least_one, conformal_p, rare_rows_p
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.guards.sheets import sheets
from invertigo.guards.signals import signals_of
from invertigo.types import Finding, Gate, History, Local, Paper, Received

LEAST = 16
"""Examples and rows from which a share is told of."""


@register
@dataclass(frozen=True, kw_only=True)
class FiringRates:
    """Share of rows that pass on the gradient of some examples, but of a few only. Dead rows count as honest: they show
    nothing, and a run that diverges leaves many.

    That is what quantile biases do, wherever their threshold is carried: in the bias, or in weights along the mean of
    the client's features. Honest layers have such rows too, up to a third of them in those that we measured, which the
    p-value allows for; the share is compared with the client's own clean rounds as well (conformal).

    Args:
        rare: part of the probe batch up to which a row fires for few; two examples at least.

    Source: the family of anomalous gradient dynamics (our reading); the bound is ours.
    """

    name: ClassVar[str] = "firing_rates"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset({"probe"})

    rare: float = 1 / 16

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        worst: Finding | None = None
        for sheet in sheets(signals_of(received, local).uses):
            if sheet.parts[0].how != "rows" or len(sheet.slopes) < LEAST:
                continue
            # Units that no row passes a gradient of, such as tokens that the head does not read, say nothing of rows.
            passing = sheet.slopes != 0
            units, fires = int(passing.any(1).sum()), passing.sum(0)
            few = max(2, int(self.rare * units))
            rows, live = ((fires > 0) & (fires <= few)).nonzero()[:, 0].tolist(), int((fires > 0).sum())
            share = len(rows) / len(fires)
            if min(live, units) >= LEAST and (worst is None or share > worst.statistic):
                message = f"{len(rows)} of {len(fires)} rows of '{sheet.name}' fire for {few} examples or fewer."
                action = "Skip the round, or train on more examples a step."
                worst = Finding(
                    self.name, self.gate, "malice", share, rare_rows_p(share, live, units), message, action,
                    layer=sheet.parts[0].parameter, rows=tuple(rows),
                )  # fmt: skip
        if worst is None:
            return ()
        own = conformal_p([value for _, value in history.clean(self.name)], worst.statistic)
        p = worst.p_value if own is None or worst.p_value is None else at_least_one(min(own, worst.p_value), 2)
        return (replace(worst, p_value=p),)
