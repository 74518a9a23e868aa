"""A schedule is planned from the speed after the first, slower iteration."""

from __future__ import annotations

import pytest
import torch

from invertigo.attacks.matching import pace as module
from invertigo.attacks.matching.pace import CALIBRATION, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def walk(pace: Pace, clock: Clock, first: float, each: float) -> int:
    """Iterations until the pace asks to stop or the schedule ends."""
    done = 0
    while done < pace.total:
        done += 1
        clock.now += first if done == 1 else each
        if pace.asks_to_stop(done, torch.tensor([1.0])):
            break
    return done


def test_the_first_iteration_is_not_taken_for_the_usual_one(clock: Clock) -> None:
    pace = Pace(10_000, seconds=20.0, started=0.0)
    assert walk(pace, clock, first=10.0, each=0.1) == pytest.approx(100, abs=2)
    assert clock.now == pytest.approx(20, rel=0.02)


def test_a_schedule_that_fits_is_not_stretched(clock: Clock) -> None:
    assert walk(Pace(50, seconds=100.0, started=0.0), clock, first=1.0, each=0.1) == 50


def test_without_a_plan_the_allowance_ends_the_run(clock: Clock) -> None:
    pace = Pace(10_000, seconds=5.0, plan=False, started=0.0)
    assert walk(pace, clock, first=0.1, each=0.1) == pytest.approx(51, abs=1)
    assert pace.total == 10_000


def test_at_least_the_calibration_runs(clock: Clock) -> None:
    assert walk(Pace(10_000, seconds=0.5, started=0.0), clock, first=0.1, each=0.1) == CALIBRATION


def test_progress_estimates_the_time_left(clock: Clock) -> None:
    ticks = []
    walk(Pace(100, progress=ticks.append, started=0.0), clock, first=0.1, each=0.1)
    assert ticks[0].seconds_left == pytest.approx(0.1 * (100 - ticks[0].done), rel=1e-6)
    assert ticks[-1].done == 100
