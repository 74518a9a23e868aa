"""Progress, time allowance and early stopping of one optimisation run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invertigo.types import Progress, Tick

CALIBRATION = 5
"""Iterations that are timed, the first one apart, before a schedule is fitted into a time allowance."""

TOLD = 0.2
"""Seconds between two reports of progress."""


@dataclass
class Pace:
    """Counts iterations, reports progress about five times a second, and plans a schedule into `seconds`.

    With an allowance, `total` shrinks once, after `CALIBRATION` iterations, to what fits; schedules that are
    functions of `done / total` are thereby run to their end rather than cut off. `plan=False` leaves `total` as it
    is, for optimisers whose iterations differ in length: these stop at the allowance.
    """

    total: int
    progress: Progress | None = None
    seconds: float | None = None
    plan: bool = True
    trace: list[tuple[int, float]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    interrupted: bool = False
    """`progress` asked to stop."""
    _reported: float = 0.0
    _warm: float = 0.0

    @property
    def elapsed(self) -> float:
        """Wall seconds since the start."""
        return time.monotonic() - self.started

    @property
    def late(self) -> bool:
        """The allowance is used up (with a tenth in hand where the schedule was planned to end on time)."""
        return self.seconds is not None and self.elapsed > self.seconds * (1.1 if self.plan else 1.0)

    def asks_to_stop(self, done: int, values: Tensor) -> bool:
        """Record iteration `done` with the restarts' best objectives so far; True when it is time to return."""
        if done == 1:
            self._warm = self.elapsed
        if self.plan and self.seconds is not None and done == CALIBRATION:
            each = (self.elapsed - self._warm) / (CALIBRATION - 1)
            self.total = max(CALIBRATION, min(self.total, int((self.seconds - self._warm) / max(each, 1e-9))))
        late = self.late
        noted = late or done % self._stride == 0 or done == self.total
        if not noted and not self._waited_for:
            return False
        best = _smallest(values)
        if noted:  # what is kept does not depend on the clock
            self.trace.append((done, best))
        return late or self._report(done, best)

    @property
    def _stride(self) -> int:
        """Reading a value synchronises the device, so it is read a few hundred times a run."""
        return max(1, self.total // 200)

    @property
    def _waited_for(self) -> bool:
        """Whoever watches has heard nothing for a while: iterations may be slow, or a schedule very long."""
        return self.progress is not None and self.elapsed - self._reported >= TOLD

    def _report(self, done: int, best: float) -> bool:
        if self.progress is None or (self.elapsed - self._reported < TOLD and done != self.total):
            return False
        self._reported = self.elapsed
        left = self.elapsed / max(done, 1) * (self.total - done)
        self.interrupted = bool(self.progress(Tick(done, self.total, best, self.elapsed, left)))
        return self.interrupted


@dataclass(frozen=True)
class Optimum:
    """Best candidate of each restart (restart, unknown), its objective (restart,), and why the run ended."""

    best: Tensor
    values: Tensor
    iterations: int
    stopped: str
    notes: tuple[str, ...] = ()


def _smallest(values: Tensor) -> float:
    finite = values[torch.isfinite(values)]
    return finite.min().item() if len(finite) else float("inf")
