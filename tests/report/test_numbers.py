from __future__ import annotations

import math

import pytest

from invertigo.auditing.record import AttackRecord
from invertigo.report.curves import HEIGHT, MAX_POINTS, WIDTH, curve
from invertigo.report.numbers import duration, number, signed


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (31.84, "dB", "31.8"),
        (-3.7, "dB", "−3.7"),
        (0.9134, "", "0.913"),
        (6.7e-4, "", "6.7e−04"),
        (0.0, "", "0.000"),
        (math.inf, "dB", "∞"),
        (math.nan, "", "–"),
        (None, "", "–"),
    ],
)
def test_numbers(value: float | None, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_signs_and_durations() -> None:
    assert (signed(7.0, "dB"), signed(-7.0, "dB")) == ("+7.0", "−7.0")
    assert [duration(s) for s in (0.44, 41.2, 60.0, 125.0)] == ["0.4 s", "41 s", "1 min", "2 min 5 s"]


def traced(trace: list[tuple[int, float]]) -> AttackRecord:
    return AttackRecord(level=1, attack="dlg", paper="", exact=False, status="ran", trace=trace)


def test_a_power_law_is_a_straight_line() -> None:
    drawn = curve(traced([(i, 10.0 ** (2 - i)) for i in range(7)]))
    points = [tuple(map(float, pair.split())) for pair in drawn.path[1:].split("L")]
    assert points == [pytest.approx((i * WIDTH / 6, i * HEIGHT / 6), abs=0.06) for i in range(7)]
    assert [tick.exponent for tick in drawn.ticks] == [2, 0, -2, -4]


def test_long_traces_are_thinned_and_zeros_and_infinities_survive() -> None:
    drawn = curve(traced([(i, max(0.0, 5000.0 - i)) for i in range(6000)] + [(6000, math.inf)]))
    assert drawn.path.count("L") == MAX_POINTS - 1
    assert curve(traced([(0, 1.0)])) is None
    assert curve(traced([(0, 0.0), (1, 0.0)])) is None
