"""Ctrl-C, as a terminal sends it: to the command and to every process that it has started, and twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grids import ATTACKS, study, write

from invertigo.studies.expansion import expand
from invertigo.studies.run import run_study
from invertigo.studies.store import Store

COMMAND = [sys.executable, "-c", "from invertigo.cli import main; main()", "study"]
ENDLESS = {"attacks": [ATTACKS[0], {"name": "inverting_gradients", "iterations": 1_000_000}]}


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(["--jobs", "1"], id="in-process"),
        pytest.param(["--jobs", "2"], id="processes", marks=pytest.mark.slow),
        pytest.param(["--ray"], id="ray", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_ends_cleanly_keeps_what_is_done_and_says_how_to_resume(tmp_path, where):
    if where == ["--ray"]:
        pytest.importorskip("ray")
    written, out = write(tmp_path / "tiny.yaml", axes=ENDLESS), tmp_path / "out"
    command = [*COMMAND, str(written), "--out", str(out), *where]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with open(tmp_path / "said", "wb") as said:
        process = subprocess.Popen(command, env=environment, stderr=said, start_new_session=True)
        try:
            wait_until(lambda: len(list((out / "cells").glob("*/config.json"))) >= 2)
            time.sleep(1)
            for _ in range(2):
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(0.02)
            assert process.wait(60) == 130
            wait_until(lambda: not of_session(process.pid), 30)
        finally:
            for left in of_session(process.pid):
                os.kill(left, signal.SIGKILL)
    told = (tmp_path / "said").read_text()
    assert "2 of 4 cells are done" in told
    assert "To resume: invertigo study" in told
    assert "Traceback" not in told
    assert "KeyboardInterrupt" not in told
    assert list((out / "partial").glob("*")) == []
    cells = expand(study(axes=ENDLESS))
    assert sorted(Store(out).scan(cell.key for cell in cells).values()) == ["done", "done", "missing", "missing"]
    assert run_study(study(axes={"attacks": ENDLESS["attacks"][:1]}), out).reused == 2


def of_session(number: int) -> list[int]:
    """The processes that were started in a session and still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == number and state != "Z":
            found.append(int(entry.parent.name))
    return found


def wait_until(true, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
