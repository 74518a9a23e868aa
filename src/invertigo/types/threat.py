"""The threat ladder: how far an adversary must go."""

from __future__ import annotations

from enum import IntEnum


class ThreatLevel(IntEnum):
    """A rung of the ladder; an adversary on a higher rung can do whatever a lower one can."""

    AGGREGATE = 0
    UPDATE = 1
    STATISTICS = 2
    INFERENCE_MODE = 3
    AUXILIARY = 4
    MALICIOUS = 5

    @property
    def summary(self) -> str:
        """One line that says what an adversary on this rung has."""
        return _SUMMARIES[self]


_SUMMARIES = {
    ThreatLevel.AGGREGATE: "sees only the sum of several clients' updates",
    ThreatLevel.UPDATE: "sees one client's update, computed in training mode, and nothing else",
    ThreatLevel.STATISTICS: "also knows the labels or the batch statistics",
    ThreatLevel.INFERENCE_MODE: "the client computes in inference mode or shares its buffers",
    ThreatLevel.AUXILIARY: "also has auxiliary data or a trained prior",
    ThreatLevel.MALICIOUS: "is a malicious server that crafts the model",
}
