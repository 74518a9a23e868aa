"""Objective curves as SVG paths on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from invertigo.auditing.record import AttackRecord

WIDTH, HEIGHT = 240.0, 110.0
MAX_POINTS = 120


@dataclass(frozen=True)
class Tick:
    """A mark on the vertical axis: its height in the picture and the exponent of ten it stands for."""

    y: float
    exponent: int


@dataclass(frozen=True)
class Curve:
    """One attack's objective over its iterations, ready to draw in a WIDTH × HEIGHT box."""

    attack: AttackRecord
    path: str
    ticks: tuple[Tick, ...]
    first: float
    last: float
    iterations: int
    end: tuple[float, float]


def curve(attack: AttackRecord) -> Curve | None:
    """The curve of an attack; None when its trace has fewer than two finite points."""
    points = [(step, value) for step, value in attack.trace if math.isfinite(value)]
    positive = [value for _, value in points if value > 0]
    if len(points) < 2 or not positive:
        return None
    floor = min(positive)
    logs = [(step, math.log10(max(value, floor))) for step, value in _thin(points)]
    low, high = _decades([value for _, value in logs])
    start, span = logs[0][0], max(logs[-1][0] - logs[0][0], 1)
    placed = [((step - start) / span * WIDTH, (high - value) / (high - low) * HEIGHT) for step, value in logs]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    stride = max(1, math.ceil((high - low) / 4))
    ticks = tuple(Tick((high - e) / (high - low) * HEIGHT, e) for e in range(high, low - 1, -stride))
    return Curve(attack, path, ticks, points[0][1], points[-1][1], points[-1][0], placed[-1])


def _decades(logs: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return (low, high) if high > low else (low, low + 1)


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most MAX_POINTS of the points, first and last among them."""
    if len(points) <= MAX_POINTS:
        return list(points)
    stride = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * stride)] for i in range(MAX_POINTS)]
