"""Progress of a study: one live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from invertigo.report.numbers import duration

if TYPE_CHECKING:
    from invertigo.studies.cells import Job, Outcome
    from invertigo.studies.progress import Tally, Watcher

EVERY = 10.0
"""Seconds between two plain lines, when nothing has failed."""
SHOWN = 8
"""Running cells that are named."""


@contextmanager
def watching(*, quiet: bool) -> Iterator[Watcher | None]:
    """A watcher for `run_study` that draws on stderr as long as the block lasts; None when `quiet`."""
    # A cell's own output is captured by replacing sys.stderr, so the display holds on to the real one.
    console = Console(file=sys.stderr)
    if quiet:
        yield None
    elif console.is_terminal:
        with Live(console=console, transient=True, refresh_per_second=4, redirect_stdout=False) as live:
            yield _drawing(live, console)
    else:
        yield _telling(console)


def headline(tally: Tally) -> str:
    """`12 of 40 cells done (3 before) · 2 running · 1 failed · about 3 min 20 s left`."""
    before = f" ({tally.reused} before)" if tally.reused else ""
    parts = [f"{tally.done + tally.reused} of {tally.total} cells done{before}"]
    parts += [f"{len(tally.running)} running"] if tally.running else []
    parts += [f"{tally.failed} failed"] if tally.failed else []
    left = tally.seconds_left
    parts += [f"about {duration(left)} left"] if left and tally.left else []
    return " · ".join(parts)


class _View:
    """Redrawn four times a second, so that the time left goes down between cells."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def __rich__(self) -> Group:
        tally = self.tally
        names = list(tally.running.values())[: min(SHOWN, tally.slots)]
        bar = ProgressBar(total=max(1, tally.total), completed=tally.total - tally.left, width=40)
        return Group(
            bar, Text(headline(tally)), *(Text(f"  {name}", style="dim", overflow="ellipsis") for name in names)
        )


def _drawing(live: Live, console: Console) -> Watcher:
    def show(tally: Tally, job: Job | None, outcome: Outcome | None) -> None:
        if job is None:
            live.update(_View(tally))
        if job is not None and outcome is not None and outcome.status == "failed":
            console.print(Text(f"failed: {job.spec.title}: {outcome.error}", style="red"))

    return show


def _telling(console: Console) -> Watcher:
    last = [-EVERY]

    def show(tally: Tally, job: Job | None, outcome: Outcome | None) -> None:
        if job is not None and outcome is not None and outcome.status == "failed":
            print(f"failed: {job.spec.title}: {outcome.error}", file=console.file, flush=True)
        beginning = job is None
        if job is not None and outcome is None:
            return
        if beginning or not tally.left or time.monotonic() - last[0] >= EVERY:
            last[0] = time.monotonic()
            print(headline(tally), file=console.file, flush=True)

    return show
