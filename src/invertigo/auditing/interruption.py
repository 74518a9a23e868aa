"""Ctrl-C during an audit: the running attack is asked to hand over its best candidate; pressed again, it is stopped."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

PATIENCE = 10.0
"""Seconds for an attack to hand over its candidate before it is stopped as if Ctrl-C were pressed again."""


@dataclass
class Stop:
    """Whether somebody asked to stop."""

    asked: bool = False


@contextmanager
def stoppable(stop: Stop) -> Iterator[None]:
    """Inside, the first Ctrl-C only sets `stop.asked`; the second, or none of an attack's answers, interrupts.

    In a thread other than the main one, and where somebody else handles the signal, nothing changes.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    timers: list[threading.Timer] = []

    def heard(number: int, frame: Any) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        timers.append(threading.Timer(PATIENCE, _thread.interrupt_main))
        timers[0].daemon = True
        timers[0].start()

    signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)
