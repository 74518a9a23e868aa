"""How many examples make each row fire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from invertigo.guards.conformal import conformal
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.guards.signals import signals_of
from invertigo.types import Finding, Gate, History, Local, Paper, Received


@register
@dataclass(frozen=True, kw_only=True)
class FiringRates:
    """Share of hidden rows that pass on the gradient of one or two examples only.

    Honest layers have such rows too, so it is compared with the client's own clean rounds (conformal p-value).

    Args:
        rare: most examples of the probe batch for which a row may fire to count as rare.

    Source: the family of anomalous gradient dynamics (our reading).
    """

    name: ClassVar[str] = "firing_rates"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset({"probe"})

    rare: int = 2

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        linear = [(n, s) for n, s in signals_of(received, local).layers.items() if isinstance(s.module, nn.Linear)]
        worst: Finding | None = None
        for name, signal in linear[:-1]:
            fires = (signal.slopes.reshape(-1, signal.slopes.shape[-1]) != 0).sum(0)
            rows = ((fires > 0) & (fires <= self.rare)).nonzero()[:, 0].tolist()
            share = len(rows) / len(fires)
            if worst is None or share > worst.statistic:
                message = f"{len(rows)} of {len(fires)} rows of '{name}' fire for {self.rare} examples or fewer."
                action = "Skip the round, or train on more examples a step."
                worst = Finding(
                    self.name, self.gate, "malice", share, None, message, action, layer=name, rows=tuple(rows)
                )
        return () if worst is None else (conformal(worst, history),)
