"""How often a guard may be wrong, over all rounds and all tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from invertigo.types import Decision, Finding, InvalidValueError

GATES = 3


@dataclass(frozen=True, kw_only=True)
class Budget:
    r"""Probability that an honest server is ever blocked, and that it ever raises a warning.

    Inspection $t = 1, 2, \dots$ may spend $\alpha_t = \alpha / (t (t + 1))$, which adds up to $\alpha$ over any number
    of rounds; each of the three gates gets a third, and within a gate Holm's procedure corrects for the tests made.
    """

    block: float = 1e-5
    warn: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.block <= self.warn < 1:
            raise InvalidValueError(
                f"A budget of block={self.block} and warn={self.warn} is none: 0 < block <= warn < 1 must hold."
            )

    def share(self, inspections: int) -> float:
        """Part of the budget that one gate may spend after `inspections` earlier inspections."""
        return 1 / (inspections + 1) / (inspections + 2) / GATES

    def decide(self, findings: Sequence[Finding], inspections: int) -> list[tuple[Finding, Decision]]:
        """What each finding of one gate amounts to."""
        share = self.share(inspections)
        adjusted = iter(holm([f.p_value for f in findings if f.p_value is not None]))
        decided: list[tuple[Finding, Decision]] = []
        for finding in findings:
            if finding.p_value is None:
                alarm: Decision = "block" if finding.kind == "defect" else finding.level
                decided.append((finding, alarm if finding.alarming else "pass"))
                continue
            p = next(adjusted)
            level: Decision = "block" if p <= self.block * share else "warn" if p <= self.warn * share else "pass"
            # A run that diverged is no accusation; it may recover, and what leaves is measured all the same.
            held = "warn" if finding.kind == "divergence" and level == "block" else level
            decided.append((finding, held))
        return decided


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: the chance of any false rejection stays under the level, however tests depend."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted
