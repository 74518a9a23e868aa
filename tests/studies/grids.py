"""Small studies for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from invertigo.studies.spec import Study, parse_study

BASE: dict[str, Any] = {
    "data": {"name": "digits", "count": 2, "public_count": 20},
    "model": {"name": "mlp"},
    "adversary": {"levels": [1]},
    "decoys": 5,
}
ATTACKS: list[Any] = ["linear_layer", {"name": "inverting_gradients", "iterations": 5}]


def grid(**changes: Any) -> dict[str, Any]:
    """A study of two attacks with two seeds, as its author would write it."""
    return {"name": "tiny", "base": BASE, "axes": {"attacks": ATTACKS}, "seeds": [0, 1], **changes}


def study(**changes: Any) -> Study:
    return parse_study(grid(**changes))


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(grid(**changes)), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, Any]:
    """All that a study's cells found, without what depends on the clock: records and the bytes of tensors."""
    import json

    found: dict[str, Any] = {}
    for cell in sorted((folder / "cells").iterdir()):
        record = json.loads((cell / "result.json").read_text(encoding="utf-8"))
        for timed in ("created", "seconds", "environment"):
            record.pop(timed)
        for timed in ("needs_seconds", "remedy"):  # the remedy names a budget by the pace of this machine
            record["verdict"].pop(timed)
        for control in record["controls"]:
            control["facts"].pop("seconds", None)
        for attack in record["attacks"]:
            attack.pop("seconds")
            attack.pop("seconds_needed")
        tensors = cell / "reconstruction.safetensors"
        found[cell.name] = record, tensors.read_bytes() if tensors.exists() else None
    return found
