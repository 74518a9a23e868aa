"""How long attacks take: the least that is needed to start one, and what the rest of an audit will need."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from invertigo.auditing.portfolio import Entry
from invertigo.auditing.trial import Trial, update_residuals
from invertigo.types import Batch, InvertigoError, Observation

GRADIENTS = 4.0
"""Simulated updates that one iteration of an attack costs: the update and its own gradient, and what is around it."""


OVERRUN = 1.5
"""Times what it was given: from there on an attack did not end late, it could not begin in time."""


@dataclass
class Forecast:
    """What was measured so far: `gradient` is the time of one simulated update."""

    gradient: float = 0.0
    least: dict[str, float] = field(default_factory=dict)
    """By attack, seconds that one took although it was given less."""
    pace: dict[str, float] = field(default_factory=dict)
    """By attack, seconds for each iteration."""
    taken: dict[str, float] = field(default_factory=dict)
    """By attack, seconds of its last run to an end of its own."""

    def measure(self, observation: Observation | None, truth: Batch | None) -> None:
        """Time one simulated update of a batch as large as the private one; what cannot be simulated takes no time."""
        if observation is None or truth is None:
            return
        started = time.monotonic()
        try:
            update_residuals(observation, truth.fields)
        except (InvertigoError, RuntimeError, ValueError, TypeError, KeyError):
            return  # the control that replays the truth says why
        self.gradient = time.monotonic() - started

    def note(self, entry: Entry, trial: Trial, given: float) -> None:
        """Learn from a run that was given so many seconds."""
        if trial.status != "ran":
            return
        if trial.iterations:
            self.pace[entry.name] = trial.seconds / trial.iterations
        if trial.seconds > OVERRUN * given:  # a little over is how any run ends that is stopped by the clock
            self.least[entry.name] = trial.seconds
        if trial.reconstruction is not None and trial.reconstruction.finished and not trial.shortened:
            self.taken[entry.name] = trial.seconds

    def needed(self, entry: Entry) -> float:
        """Seconds below which starting the attack would only overrun: about two iterations of all its restarts."""
        if entry.attack.exact:
            return 0.0
        return max(self.least.get(entry.name, 0.0), 2 * self.iteration(entry))

    def expected(self, entry: Entry, share: float) -> float:
        """Seconds that a waiting run will take of its `share`."""
        if entry.name in self.taken:
            return min(share, self.taken[entry.name])
        if entry.attack.exact:
            return min(share, 2 * self.gradient)
        iterations = getattr(entry.attack, "iterations", None)
        return share if iterations is None else min(share, iterations * self.iteration(entry))

    def rest(self, waiting: Sequence[Entry], shares: float) -> float:
        """Seconds of the runs that wait, when `shares` is all the time there is for them."""
        left, total = len(waiting), 0.0
        for entry in waiting:
            each = self.expected(entry, max(0.0, shares - total) / left)
            total, left = total + each, left - 1
        return total

    def iteration(self, entry: Entry) -> float:
        """Seconds of one iteration, by its last run, else by what a simulated update costs."""
        if entry.name in self.pace:
            return self.pace[entry.name]
        return GRADIENTS * self.gradient * getattr(entry.attack, "restarts", 1)


def reduced(entry: Entry) -> bool:
    """The attack was given fewer iterations than it has by default, which leaves a verdict open."""
    default = next((one.default for one in fields(entry.attack) if one.name == "iterations"), None)  # type: ignore[arg-type]
    return isinstance(default, int) and getattr(entry.attack, "iterations", default) < default
