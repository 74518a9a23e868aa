"""What an audit tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from invertigo.types import Progress, Tick


@dataclass(frozen=True)
class Stage:
    """Progress of an audit: run `number` of `count`, with the running attack's own progress beside it.

    `seconds_left` is of the running attack, `audit_left` of the whole audit (None: not known). A stage with a `total`
    of 0 says that something begins: an attack before its first iteration, or what `attack` calls it.
    """

    level: int
    attack: str
    number: int
    count: int
    done: int
    total: int
    objective: float
    seconds: float
    seconds_left: float
    informed: bool = False
    audit_left: float | None = None


AuditProgress = Callable[[Stage], bool | None]
"""Called now and then while an audit runs; returning True stops the running attack with its best so far."""


def beginning(what: str, *, level: int = 0, number: int = 0, count: int = 0, audit_left: float = 0.0) -> Stage:
    """Something begins."""
    return Stage(level, what, number, count, 0, 0, float("nan"), 0.0, 0.0, audit_left=audit_left)


def watch(
    start: Stage, report: AuditProgress | None, stops: Callable[[], bool], left: Callable[[Tick], float]
) -> Progress:
    """A callback for the attack that `start` is about.

    Args:
        stops: whether somebody has asked the audit to stop.
        left: seconds of the whole audit, from the progress of the attack.
    """

    def forward(tick: Tick) -> bool:
        stage = replace(
            start,
            done=tick.done,
            total=tick.total,
            objective=tick.objective,
            seconds=tick.seconds,
            seconds_left=tick.seconds_left,
            audit_left=left(tick),
        )
        asked = bool(report(stage)) if report is not None else False
        return asked or stops()

    return forward
