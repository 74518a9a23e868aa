"""Progress of an audit: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task
from rich.text import Text

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


def describe(stage: Stage, waited: float = 0.0) -> str:
    """`rung 1 · dlg (2 of 5) · iteration 300 of 1000 · objective 0.012 · 4 s left`, `waited` seconds after it was told.

    The time left is that of the whole audit, as far as it is known.
    """
    left = (stage.seconds_left if stage.audit_left is None else stage.audit_left) - waited
    ending = f" · {duration(left)} left" if 0 < left < float("inf") else ""
    if not stage.total and not stage.count:
        return f"{stage.attack}{ending}"
    who = f"rung {stage.level} · {stage.attack} ({stage.number} of {stage.count})"
    if not stage.total:
        return f"{who} · starting{ending}"
    return f"{who} · iteration {stage.done} of {stage.total} · objective {number(stage.objective)}{ending}"


class _Told(ProgressColumn):
    """The last stage, its time left counted down between two of them."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        stage = task.fields.get("stage")
        if stage is None:
            return Text("starting")
        return Text(describe(stage, time.monotonic() - task.fields["told"]))


def _bars(console: Console) -> Progress:
    return Progress(SpinnerColumn(), BarColumn(bar_width=20), _Told(), console=console, transient=True)


def _live(bars: Progress) -> AuditProgress:
    task = bars.add_task("", total=None)

    def show(stage: Stage) -> None:
        bars.update(task, total=stage.total or None, completed=stage.done, stage=stage, told=time.monotonic())

    return show


def _plain() -> AuditProgress:
    last: dict[str, float] = {}

    def show(stage: Stage) -> None:
        key, now = f"{stage.level}/{stage.attack}/{stage.number}", time.monotonic()
        if now - last.get(key, -EVERY) >= EVERY or (stage.total and stage.done == stage.total):
            last[key] = now
            print(describe(stage), file=sys.stderr, flush=True)

    return show
