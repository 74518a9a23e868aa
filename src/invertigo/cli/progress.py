"""Progress of an audit: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from invertigo.report.numbers import duration, number

if TYPE_CHECKING:
    from invertigo.auditing.session import AuditProgress, Stage

EVERY = 10.0
"""Seconds between two plain lines about the same attack."""


@contextmanager
def watching(*, quiet: bool) -> Iterator[AuditProgress | None]:
    """A callback for `audit_scenario` that draws on stderr as long as the block lasts; None when `quiet`."""
    console = Console(stderr=True)
    if quiet:
        yield None
    elif console.is_terminal:
        with _bars(console) as bars:
            yield _live(bars)
    else:
        yield _plain()


def describe(stage: Stage) -> str:
    """`rung 1 · dlg (2 of 5) · iteration 300 of 1000 · objective 0.012 · 4 s left`."""
    left = f" · {duration(stage.seconds_left)} left" if 0 < stage.seconds_left < float("inf") else ""
    return (
        f"rung {stage.level} · {stage.attack} ({stage.number} of {stage.count}) · "
        f"iteration {stage.done} of {stage.total} · objective {number(stage.objective)}{left}"
    )


def _bars(console: Console) -> Progress:
    columns = (SpinnerColumn(), BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    return Progress(*columns, console=console, transient=True)


def _live(bars: Progress) -> AuditProgress:
    task = bars.add_task("starting", total=None)

    def show(stage: Stage) -> None:
        bars.update(task, total=stage.total or None, completed=stage.done, description=describe(stage))

    return show


def _plain() -> AuditProgress:
    last: dict[str, float] = {}

    def show(stage: Stage) -> None:
        key, now = f"{stage.level}/{stage.attack}/{stage.number}", time.monotonic()
        if now - last.get(key, -EVERY) >= EVERY or stage.done == stage.total:
            last[key] = now
            print(describe(stage), file=sys.stderr, flush=True)

    return show
