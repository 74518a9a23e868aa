"""The time an audit may take: read from text, split among what is still to run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from invertigo.types import ConfigurationError

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_budget(value: str | float | int) -> float:
    """Seconds of a budget: a number, or text such as `90`, `60s`, `2.5m`, `1h`. Raises: ConfigurationError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value).lower())
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise ConfigurationError(
            f"The budget is {value!r}, which is no positive time; the audit must know when to stop. "
            "Write seconds (90), or a number with a unit: 60s, 2m, 1h."
        )
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Budget:
    """`seconds` of wall time counted from `started`; `clock` is injectable so that tests need not wait."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    started: float = field(default=-1.0)

    def __post_init__(self) -> None:
        if self.started < 0:
            object.__setattr__(self, "started", self.clock())

    @property
    def spent(self) -> float:
        """Seconds since the audit began."""
        return self.clock() - self.started

    @property
    def left(self) -> float:
        """Seconds until the budget is gone; negative when overdrawn."""
        return self.seconds - self.spent

    def share(self, among: int, reserve: float = 0.05) -> float:
        """An equal part of what is left for each of `among` runs, a fraction `reserve` kept back for the scoring."""
        return max(0.0, self.left - reserve * self.seconds) / max(1, among)
