"""What a study has done so far, and how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from invertigo.studies.cells import Job, Outcome


@dataclass
class Tally:
    """Counts while a study runs. `reused` cells were done before; `running` maps a job to what people call it."""

    total: int
    reused: int = 0
    done: int = 0
    failed: int = 0
    slots: int = 1
    running: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """Spent in cells that have ended in this run."""
    started: float = field(default_factory=time.monotonic)
    paced: bool = False
    """`started` is when the first job began rather than when the run did."""

    @property
    def left(self) -> int:
        """Cells that have not ended."""
        return self.total - self.reused - self.done - self.failed

    @property
    def seconds_left(self) -> float | None:
        """Time for the rest at the pace so far; None before the first cell has ended."""
        ended = self.done + self.failed
        return (time.monotonic() - self.started) / ended * self.left if ended else None

    def begin(self, job: Job) -> None:
        """A job was handed over."""
        self.running[job.name] = f"training a model for {job.spec.title}" if job.artifact else job.spec.title

    def end(self, job: Job, outcome: Outcome) -> None:
        """A job has ended; artifacts are not counted as cells."""
        self.running.pop(job.name, None)
        if not self.paced:  # workers have started and imported what they need; that is no part of a cell's pace
            self.paced, self.started = True, time.monotonic() - outcome.seconds
        if job.artifact is None:
            self.seconds += outcome.seconds
            self.done += outcome.status == "done"
            self.failed += outcome.status == "failed"


Watcher = Callable[[Tally, Job | None, Outcome | None], None]
"""Called when a run begins (no job), when a job begins (no outcome) and when it has ended."""
