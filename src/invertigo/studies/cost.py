"""What a study will take: cells, models to train, iterations; and time, once some of its cells have been measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from invertigo import attacks
from invertigo.studies.expansion import CellSpec
from invertigo.studies.store import Store

SAMPLE = 200
"""Done cells that are read for an estimate of the time."""


@dataclass(frozen=True)
class Cost:
    """What is left to do. `iterations` are of attacks on one rung; `seconds` is None until cells were measured here."""

    cells: int
    done: int
    failed: int
    damaged: int
    victims: int
    iterations: int
    seconds: float | None = None

    @property
    def left(self) -> int:
        """Cells without a result, failed ones not counted."""
        return self.cells - self.done - self.failed


def cost_of(specs: Sequence[CellSpec], store: Store | None = None) -> Cost:
    """The cost of what `store` does not have yet; of everything without one."""
    cells = {spec.key: spec for spec in specs}
    states = store.scan(cells) if store is not None else {}
    left = [spec for key, spec in cells.items() if states.get(key) not in ("done", "failed")]
    victims = {key for spec in left for key in spec.needs if store is None or not store.has_artifact(key)}
    counted = list(states.values())
    return Cost(
        cells=len(cells),
        done=counted.count("done"),
        failed=counted.count("failed"),
        damaged=counted.count("damaged"),
        victims=len(victims),
        iterations=sum(_iterations(spec) for spec in left),
        seconds=_seconds([key for key, state in states.items() if state == "done"], left, cells, store),
    )


def _seconds(
    done: Sequence[str], left: Sequence[CellSpec], cells: dict[str, CellSpec], store: Store | None
) -> float | None:
    """Time of the cells left, by that of done cells at the same point, else of all done cells."""
    if store is None or not done:
        return None
    taken: dict[str, list[float]] = {}
    for key in done[:: max(1, len(done) // SAMPLE)]:
        record = store.load(key).record
        if record is not None:
            taken.setdefault(_point(cells[key]), []).append(record.seconds)
    usual = fmean(seconds for many in taken.values() for seconds in many)
    return sum(fmean(taken.get(_point(spec), [usual])) for spec in left)


def _point(spec: CellSpec) -> str:
    return repr(sorted(spec.coordinates.items()))


def _iterations(spec: CellSpec) -> int:
    levels = len(spec.config["adversary"]["levels"] or [1])
    return levels * sum(one.get("iterations", 0) * _restarts(one) for one in spec.config["attacks"])


def _restarts(attack: dict[str, Any]) -> int:
    return attack.get("restarts", getattr(attacks.registry[attack["name"]], "restarts", 1))
