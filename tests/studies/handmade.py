"""Results of studies made by hand, so that claims, tables and reports are tested without running an audit."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from invertigo.auditing.record import (
    CONTROLS,
    AttackRecord,
    AuditRecord,
    BaselineRecord,
    ControlRecord,
    MetricRecord,
    VerdictRecord,
)
from invertigo.studies.store import CellResult

METRICS = [
    MetricRecord(name="psnr", label="PSNR", privacy_loss=True, unit="dB"),
    MetricRecord(name="mse", label="MSE", privacy_loss=False),
]


def attack(name: str = "dlg", level: int = 1, psnr: Sequence[float] = (), **more: Any) -> AttackRecord:
    scores = {"psnr": list(psnr), "mse": [10 ** (-p / 10) for p in psnr]} if psnr else {}
    facts: dict[str, Any] = {
        "paper": "zhu2019deep",
        "exact": False,
        "status": "ran",
        "seconds": 1.5,
        "scores": scores,
        "matching": list(range(len(psnr))),
        "ranks": [1 if p > 15 else 7 for p in psnr],
        "decoys": 100 if psnr else 0,
        "outcomes": ["recognisable" if p > 18 else "nothing" for p in psnr],
        "tensors": f"{level}-{name}",
    }
    return AttackRecord(level=level, attack=name, **(facts | more))


def record(attacks: Sequence[AttackRecord], *, seed: int = 0, **data: Any) -> AuditRecord:
    count = max((len(one.outcomes) for one in attacks), default=0)
    guesses = [("mean_image", 9.0), ("prior_only", 6.0)]
    return AuditRecord(
        title="A cell",
        created="2026-11-20T10:15:00+00:00",
        version="0.1.0",
        command="",
        seed=seed,
        seconds=2.0,
        budget_seconds=60.0,
        scenario={"data": {"name": "faces", "count": count, "skip": 0, "pool": None, **data}, "seed": seed},
        domain={"name": "images", "shape": [1, 8, 8]},
        num_examples=count,
        knowledge=[],
        metrics=METRICS,
        attacks=list(attacks),
        baselines=[
            BaselineRecord(name=name, label=name, scores={"psnr": [level] * count, "mse": [0.1] * count})
            for name, level in guesses
        ],
        levels=[],
        flags=[],
        controls=[ControlRecord(name=name, status="passed", summary=f"{name} passed.") for name in CONTROLS],
        verdict=VerdictRecord(status="resists", headline="Nothing was rebuilt.", detail=""),
        citations={},
        environment={},
        private=False,
    )


def cell(
    coordinates: Mapping[str, Any],
    seed: int = 0,
    attacks: Sequence[AttackRecord] | None = None,
    *,
    failure: str | None = None,
    block: int = 0,
    **data: Any,
) -> CellResult:
    key = hashlib.sha256(repr((dict(coordinates), seed, block)).encode()).hexdigest()[:16]
    found = None if attacks is None else record(attacks, seed=seed, **data)
    return CellResult(coordinates=dict(coordinates), seed=seed, key=key, record=found, failure=failure, block=block)


def grid(
    axes: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    psnr: Callable[..., Sequence[float]],
) -> list[CellResult]:
    """A cell for every combination; `psnr(seed=..., **coordinates)` gives the scores of its one attack."""
    cells = []
    for values in itertools.product(*axes.values()):
        coordinates = dict(zip(axes, values))
        cells += [cell(coordinates, seed, [attack(psnr=psnr(seed=seed, **coordinates))]) for seed in seeds]
    return cells
