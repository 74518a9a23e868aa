"""Studies on a Ray cluster of this machine. Starting one takes its time, so all of these are slow."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from grids import contents, study

from invertigo.studies.cells import Job
from invertigo.studies.cluster import Ray
from invertigo.studies.expansion import expand
from invertigo.studies.run import run_study
from invertigo.studies.spec import Resources
from invertigo.studies.store import Store

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

LONG = {"attacks": [{"name": "inverting_gradients", "iterations": 1500}]}


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def test_one_process_two_and_ray_find_the_same(cluster, tmp_path):
    axes = {"attacks": ["linear_layer", {"name": "dlg", "iterations": 5}], "model.trained_epochs": [0, 1]}
    for name, where in {"one": {"jobs": 1}, "two": {"jobs": 2}, "ray": {"ray": True}}.items():
        assert run_study(study(axes=axes, seeds=[0]), tmp_path / name, **where).complete
    assert len(contents(tmp_path / "one")) == 4
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "ray")


def test_a_folder_is_meant_from_where_the_study_was_started(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_study(study(axes={"attacks": ["linear_layer"]}, seeds=[0]), "here", ray=True).complete
    assert len(list((tmp_path / "here" / "cells").iterdir())) == 1


def test_the_cell_of_a_lost_worker_is_run_again(cluster, tmp_path):
    (cell,) = expand(study(axes=LONG, seeds=[0]))
    Store(tmp_path).place.prepare()
    where = Ray(str(tmp_path), Resources())
    where.submit(Job(cell))
    kill_a_worker()
    job, outcome = where.next()
    assert (job.spec.key, outcome.status) == (cell.key, "done")
    assert Store(tmp_path).done(cell.key)


def test_a_cell_that_loses_every_worker_fails_and_the_study_goes_on(cluster, tmp_path):
    cells = expand(study(axes=LONG, seeds=[0]))
    Store(tmp_path).place.prepare()
    where = Ray(str(tmp_path), Resources())
    where.submit(Job(cells[0]))
    lost = kill_a_worker()
    kill_a_worker(besides=lost)
    job, outcome = where.next()
    assert (job.spec.key, outcome.status) == (cells[0].key, "failed")
    assert "worker was lost 2 times" in outcome.error
    assert run_study(study(axes={"attacks": ["linear_layer"]}, seeds=[0]), tmp_path, ray=True).complete


def kill_a_worker(besides: int = 0) -> int:
    """Kill the process of this cluster that has been at a cell for a moment, and return its number."""
    deadline = time.monotonic() + 120
    while not (at_work := [pid for pid in descendants(os.getpid()) if runs_a_cell(pid) and pid != besides]):
        assert time.monotonic() < deadline, "no worker was seen"
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(at_work[0], signal.SIGKILL)
    return at_work[0]


def runs_a_cell(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_work_there")
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found, left = [], [pid]
    while left:
        left += children.get(left[0], [])
        found.append(left.pop(0))
    return found[1:]
