"""The examples run as a reader runs them, and find what their comments promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FINDS = {
    "stock_training": "epoch 2: loss",
    "audit_training_script": "rebuilt 2 of 2 images exactly",
    "two_state_dicts": "rebuilt 2 of 2 images exactly",
    "add_an_attack": "recovered: 1 of 1",
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(FINDS)


@pytest.mark.parametrize("name", FINDS)
def test_example(name, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert FINDS[name] in run.stdout, run.stdout
