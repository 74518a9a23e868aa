"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: float | None, unit: str = "") -> str:
    """A score with the digits that carry information: one decimal for decibels, three otherwise; `–` when unknown."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if unit == "dB":
        text = f"{value:.1f}"
    elif value != 0 and abs(value) < 1e-3:
        text = f"{value:.1e}"
    else:
        text = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def signed(value: float, unit: str = "") -> str:
    """A difference, with its sign always shown."""
    return ("+" if value > 0 else "") + number(value, unit)


def duration(seconds: float) -> str:
    """Seconds as `0.4 s`, `41 s` or `2 min 5 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return " ".join([f"{minutes} min"] * bool(minutes) + [f"{rest} s"] * bool(rest))
