"""The privacy-utility frontier as numbers that a template draws: one panel for all, then one for each defense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from invertigo.report.charts import HEIGHT, WIDTH, Scale, nice_scale, ticks
from invertigo.report.numbers import number
from invertigo.studies.frontier import Frontier, FrontierPoint, leaked
from invertigo.studies.frontier_study import NONE

TOP = 40.0
"""Decibels that a panel goes up to: what is above cannot be told from the original, and would flatten all the rest."""


@dataclass(frozen=True)
class Spot:
    """A point on a panel; `text` is what it says when pointed at."""

    x: float
    y: float
    text: str
    label: str = ""


@dataclass(frozen=True)
class Trade:
    """One defense: its spots for the informed and for the naive adversary, in the order of its strength."""

    name: str
    informed: tuple[Spot, ...]
    naive: tuple[Spot, ...]
    dominated: bool

    @property
    def path(self) -> str:
        """The informed spots joined."""
        return _path(self.informed)

    @property
    def naive_path(self) -> str:
        """The naive spots joined."""
        return _path(self.naive)

    @property
    def apart(self) -> bool:
        """The two adversaries differ visibly."""
        return any(abs(a.y - b.y) > 2 for a, b in zip(self.informed, self.naive))


@dataclass(frozen=True)
class Row:
    """A line of the table under the charts, every figure as text."""

    name: str
    setting: str
    cells: tuple[tuple[str, str], ...]
    dominated_by: str
    bare: bool


@dataclass(frozen=True)
class FrontierView:
    """Everything that the page draws and lists."""

    trades: tuple[Trade, ...]
    bare: Spot | None
    front: str
    best: tuple[Spot, ...]
    """The points that nothing dominates, from the most private to the most accurate."""
    guess: float | None
    guess_text: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_name: str
    y_name: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    held: tuple[tuple[int, str], ...]
    """By rung: the cheapest defense that holds there; an empty text where none does."""
    dominated: tuple[str, ...]
    lower_is_private: bool
    learned: bool
    capped: str
    """What is said where scores lie beyond the panels; empty where none does."""


def frontier_view(frontier: Frontier | None) -> FrontierView | None:
    """The page's view of a frontier; without any measured accuracy it has a table and no charts."""
    if frontier is None:
        return None
    placed = [p for p in frontier.points if p.accuracy is not None]
    scores = [s for p in placed for s in (p.naive, p.informed, *([p.guess] if p.guess is not None else []))]
    across = nice_scale([100 * (p.accuracy or 0.0) for p in placed]) if placed else None
    up = nice_scale([_drawn(s, frontier) for s in scores]) if scores else None
    guesses = [p.guess for p in frontier.points if p.guess is not None]
    guess = sum(guesses) / len(guesses) if guesses else None
    drawn = across is not None and up is not None and len(placed) > 1
    columns = _columns(frontier)
    spots = _Spots(frontier, across, up) if drawn and across and up else None
    best = spots.best() if spots else ()
    return FrontierView(
        trades=tuple(spots.trade(name, points) for name, points in frontier.curves.items() if name != NONE)
        if spots
        else (),
        bare=spots.bare() if spots else None,
        front=_path(best),
        best=best,
        guess=(1 - up(guess)) * HEIGHT if guess is not None and up is not None else None,
        guess_text="" if guess is None else f"{number(guess, frontier.unit)} {frontier.unit}".strip(),
        x_ticks=ticks(across, WIDTH, False) if across else (),
        y_ticks=ticks(up, HEIGHT, True) if up else (),
        x_name="accuracy in %",
        y_name=f"Mean {frontier.metric}" + (f" in {frontier.unit}" if frontier.unit else ""),
        rows=tuple(_row(point, frontier, columns) for point in frontier.points),
        columns=columns,
        held=tuple((rung, frontier.sentence(rung)) for rung in frontier.rungs),
        dominated=tuple(frontier.dominated),
        lower_is_private=frontier.sign > 0,
        learned=frontier.learned,
        capped=f"Scores above {TOP:g} {frontier.unit} are drawn there."
        if any(s != _drawn(s, frontier) for s in scores)
        else "",
    )


def _drawn(score: float, frontier: Frontier) -> float:
    return min(score, TOP) if frontier.unit == "dB" else score


@dataclass(frozen=True)
class _Spots:
    """Places points on the panels' common scales."""

    frontier: Frontier
    across: Scale
    up: Scale

    def trade(self, name: str, points: Sequence[FrontierPoint]) -> Trade:
        measured = [p for p in points if p.accuracy is not None]
        informed = tuple(self.spot(p, p.informed, "informed") for p in measured)
        naive = tuple(self.spot(p, p.naive, "naive") for p in measured)
        return Trade(name, informed, naive, name in self.frontier.dominated)

    def spot(self, point: FrontierPoint, score: float, who: str) -> Spot:
        unit = self.frontier.unit
        accuracy = point.accuracy or 0.0
        text = f"{point.name}, {who}: {number(score, unit)} {unit} at {accuracy:.1%} accuracy"
        height = self.up(_drawn(score, self.frontier))
        return Spot(self.across(100 * accuracy) * WIDTH, (1 - height) * HEIGHT, text, point.setting)

    def bare(self) -> Spot | None:
        points = [p for p in self.frontier.curves.get(NONE, []) if p.accuracy is not None]
        return self.spot(points[0], points[0].informed, "no defense") if points else None

    def best(self) -> tuple[Spot, ...]:
        kept = [p for p in self.frontier.points if p.accuracy is not None and not _beaten(p, self.frontier)]
        kept.sort(key=lambda p: (p.accuracy or 0.0, self.frontier.sign * p.informed))
        before = [NONE, *(p.defense for p in kept)]
        names = [p.defense if p.defense not in (NONE, last) else "" for p, last in zip(kept, before)]
        return tuple(replace(self.spot(p, p.informed, "informed"), label=name) for p, name in zip(kept, names))


def _beaten(point: FrontierPoint, frontier: Frontier) -> bool:
    """Another point, of whatever defense, hides at least as much at at least as much accuracy, and differs."""
    mine = leaked(point, frontier.sign), -(point.accuracy or 0.0)
    others = [(leaked(p, frontier.sign), -p.accuracy) for p in frontier.points if p.accuracy is not None]
    return any(o[0] <= mine[0] and o[1] <= mine[1] and o != mine for o in others)


def _columns(frontier: Frontier) -> tuple[str, ...]:
    """Columns of the table that some point fills."""
    known = {
        "accuracy": any(p.accuracy is not None for p in frontier.points),
        "bytes": any(p.bytes is not None for p in frontier.points),
        "undefended": any(p.undefended for p in frontier.points),
        "ε": any(p.epsilon is not None for p in frontier.points),
        "client time": any(p.seconds is not None for p in frontier.points),
    }
    return ("naive", "informed", "rebuilt", *(name for name, there in known.items() if there))


def _row(point: FrontierPoint, frontier: Frontier, columns: Sequence[str]) -> Row:
    bare = next((p for p in frontier.points if p.defense == NONE), None)
    texts = {
        "naive": number(point.naive, frontier.unit),
        "informed": number(point.informed, frontier.unit),
        "rebuilt": f"{point.recovered:.0%}"
        + (f" ({point.naive_recovered:.0%} naive)" if point.naive_recovered < point.recovered else ""),
        "accuracy": "–" if point.accuracy is None else f"{100 * point.accuracy:.1f} %",
        "bytes": _times(point.bytes, bare.bytes if bare else None),
        "undefended": "–" if point.undefended is None else f"{point.undefended:.0%}",
        "ε": _loss(point.epsilon),
        "client time": _times(point.seconds, bare.seconds if bare else None),
    }
    return Row(
        point.defense if point.defense != NONE else "no defense",
        point.setting,
        tuple((column, texts[column]) for column in columns),
        "" if point.defense == NONE else point.dominated_by,
        point.defense == NONE,
    )


def _loss(epsilon: float | None) -> str:
    """A privacy loss; what is beyond any meaning is not given with digits."""
    return "–" if epsilon is None else "> 1000" if epsilon > 1000 else f"{epsilon:.3g}"


def _times(value: float | None, reference: float | None) -> str:
    if value is None:
        return "–"
    return f"× {value / reference:.2g}" if reference else f"{value:.3g}"


def _path(spots: Sequence[Spot]) -> str:
    return "M" + "L".join(f"{s.x:.1f} {s.y:.1f}" for s in spots) if len(spots) > 1 else ""
