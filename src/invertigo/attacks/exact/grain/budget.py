"""How much work an exact attack may do: CPU seconds, candidates, and the caller's wish to stop."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from invertigo.types import Progress, Tick


class OutOfBudget(Exception):
    """The time is spent, or the caller asked to stop; what is known so far is returned."""


@dataclass
class Budget:
    """Counts work and raises `OutOfBudget` when it is used up.

    Seconds are CPU seconds of this process, so that a busy machine does not change what is found.
    """

    seconds: float
    progress: Progress | None = None
    candidates: int = 0
    started: float = field(default_factory=time.process_time)
    stages: dict[str, float] = field(default_factory=dict)
    _told: float = 0.0
    _limits: list[float] = field(default_factory=list)

    @property
    def spent(self) -> float:
        """CPU seconds since the start."""
        return time.process_time() - self.started

    @property
    def left(self) -> bool:
        """There is time, whatever a stage's own limit says."""
        return self.spent <= self.seconds

    @property
    def remaining(self) -> float:
        """CPU seconds until the nearest limit."""
        return max(min([self.seconds, *self._limits]) - self.spent, 0.0)

    def afford(self, seconds: float, what: str) -> None:
        """Check before work that cannot be interrupted that there is time for it. Raises: OutOfBudget."""
        self.spend()
        if seconds > self.remaining:
            raise OutOfBudget(f"{self.spent:.1f} CPU seconds, since {what} takes about {seconds:.0f} more")

    def spend(self, candidates: int = 0) -> None:
        """Count candidates. Raises: OutOfBudget."""
        self.candidates += candidates
        spent = self.spent
        if spent > min([self.seconds, *self._limits]):
            raise OutOfBudget(f"{spent:.1f} CPU seconds")
        if self.progress is not None and spent - self._told >= 0.05:
            self._told = spent
            fraction = min(int(1000 * spent / self.seconds), 999) if self.seconds else 999
            if self.progress(Tick(fraction, 1000, float("nan"), spent, max(self.seconds - spent, 0.0))):
                self.seconds = 0.0
                raise OutOfBudget("asked to stop")

    def stage(self, name: str) -> Stage:
        """A block of work whose CPU seconds are noted under `name`."""
        return Stage(self, name, None)

    def limited(self, name: str, seconds: float) -> Stage:
        """Such a block that may take at most so many of the seconds that are left."""
        return Stage(self, name, seconds)


@dataclass
class Stage:
    """A timed block, with a limit of its own where it has one."""

    budget: Budget
    name: str
    seconds: float | None
    _start: float = 0.0

    def __enter__(self) -> Budget:
        self._start = self.budget.spent
        if self.seconds is not None:
            self.budget._limits.append(self._start + self.seconds)
        return self.budget

    def __exit__(self, *_: object) -> None:
        if self.seconds is not None:
            self.budget._limits.pop()
        stages = self.budget.stages
        stages[self.name] = stages.get(self.name, 0.0) + self.budget.spent - self._start
