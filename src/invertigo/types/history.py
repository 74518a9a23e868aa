"""What a client remembers of the models that it was sent, and what it made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from invertigo.types.guard import Decision, GuardVerdict
from invertigo.types.printable import printable

HISTORY_VERSION = 1
LASTING = 3
"""Warned rounds in a row from which a change counts as how things are."""
MOST_COUNTED = 2**53


@dataclass(frozen=True)
class Visit:
    """One round in which this client took part."""

    round: int
    figures: Mapping[str, float]
    fingerprint: str = ""
    decision: Decision = "pass"


@dataclass(frozen=True)
class History:
    """What a client remembers of its rounds; rounds it did not take part in leave gaps. It never leaves the client."""

    visits: tuple[Visit, ...] = ()
    inspections: int = 0
    """How often a model was inspected, also those that were refused: the budget counts them."""

    def clean(self, figure: str) -> list[tuple[int, float]]:
        """(round, value) of a figure in the rounds that count: those that passed, and those of a lasting change.

        A warning that repeats itself in `LASTING` rounds in a row is how things are now: a larger learning rate, say.
        From then on these rounds are what later ones are held against.
        """
        return [(v.round, v.figures[figure]) for v in self._counting() if figure in v.figures]

    def _counting(self) -> list[Visit]:
        counting: list[Visit] = []
        run: list[Visit] = []
        for visit in self.visits:
            run = [*run, visit] if visit.decision == "warn" else []
            if visit.decision == "pass":
                counting.append(visit)
            elif len(run) == LASTING:
                counting += run
            elif len(run) > LASTING:
                counting.append(visit)
        return counting

    @property
    def settled(self) -> bool:
        """There is a round that later ones can be held against."""
        return bool(self._counting())

    def add(self, verdict: GuardVerdict, *, keep: int = 1000) -> History:
        """With this verdict's round at the end; only the last `keep` rounds are kept."""
        visit = Visit(verdict.round, dict(verdict.figures), verdict.fingerprint, verdict.decision)
        return replace(self, visits=(*self.visits, visit)[-keep:], inspections=self.inspections + 1)

    def dumps(self) -> str:
        """As JSON, with a version."""
        return json.dumps({"version": HISTORY_VERSION, **asdict(self)})

    @classmethod
    def loads(cls, text: str | None) -> tuple[History, str | None]:
        """The history that `dumps` wrote, and a warning where it cannot be read: then the client starts anew."""
        if not text:
            return cls(), None
        try:
            held = json.loads(text)
            if held["version"] != HISTORY_VERSION:
                return cls(), (
                    f"The guard's history is of version {held['version']}, this is version {HISTORY_VERSION}: it "
                    "starts anew, so the next model is inspected like the first."
                )
            visits = tuple(_checked(Visit(**visit)) for visit in held["visits"])
            return cls(visits, _counted(held["inspections"], "inspections")), None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            return cls(), printable(f"The guard's history cannot be read ({error}), so it starts anew.")


def _checked(visit: Visit) -> Visit:
    """A visit as `dumps` writes it. Raises: ValueError, TypeError."""
    _counted(visit.round, "round")
    if visit.decision not in get_args(Decision):
        raise ValueError(f"the decision {visit.decision!r} is none of {get_args(Decision)}")
    if not isinstance(visit.fingerprint, str):
        raise TypeError("a fingerprint is no text")
    for name, value in visit.figures.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"the figure {name!r} is {value!r}, no finite number")
    return visit


def _counted(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_COUNTED:
        raise ValueError(f"{what} is {value!r}, no count")
    return value
