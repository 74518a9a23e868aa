from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from grids import ATTACKS, BASE, contents, study, write

from invertigo.studies.cells import Job, Outcome
from invertigo.studies.conclusion import conclude, write_conclusion
from invertigo.studies.executors import Here, Processes, executor_for
from invertigo.studies.expansion import expand
from invertigo.studies.run import parse_shard, read_study, run_study
from invertigo.studies.spec import Resources
from invertigo.studies.store import Store
from invertigo.types import ConfigurationError, MissingDataError, OutputError

COMMAND = [sys.executable, "-c", "from invertigo.cli import main; main()", "study"]
TRAINED = {"attacks": ["linear_layer"], "model.trained_epochs": [0, 1]}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert run_study(study(), folder).complete
    return folder


def test_a_study_leaves_a_folder_for_each_cell(uninterrupted):
    cells = expand(study())
    assert {cell.key for cell in cells} == {path.name for path in (uninterrupted / "cells").iterdir()}
    store = Store(uninterrupted)
    for cell, result in zip(cells, store.results(cells)):
        marker = json.loads((uninterrupted / "cells" / cell.key / "config.json").read_text())
        assert marker["config"] == cell.config
        assert (result.coordinates, result.seed, result.failure) == (cell.coordinates, cell.seed, None)
        assert result.record is not None
        assert result.record.attacks[0].attack == cell.coordinates["attacks"]
        assert result.record.seed == cell.seed
        assert "ran" in (uninterrupted / "cells" / cell.key / "log.txt").read_text()
    assert read_study(store) == (study(), None)


def test_a_cell_is_what_a_single_audit_of_its_configuration_finds(uninterrupted):
    from invertigo import audit
    from invertigo.auditing import Scenario
    from invertigo.report import load

    cell = expand(study())[2]
    alone, kept = audit(Scenario.model_validate(cell.config)), load(uninterrupted / "cells" / cell.key)
    assert kept.record.attacks[0].scores == alone.record.attacks[0].scores
    assert kept.record.baselines == alone.record.baselines
    for name, tensor in alone.reconstructions.items():
        assert torch.equal(kept.reconstructions[name], tensor)
    assert kept.originals is not None


def test_running_again_computes_nothing(uninterrupted):
    before = {path: path.stat().st_mtime_ns for path in (uninterrupted / "cells").rglob("*")}
    found = run_study(study(), uninterrupted)
    assert (found.reused, found.done) == (4, 0)
    assert {path: path.stat().st_mtime_ns for path in (uninterrupted / "cells").rglob("*")} == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda cell: (cell / "result.json").write_text("{}"),
        lambda cell: (cell / "result.json").unlink(),
        lambda cell: (cell / "config.json").unlink(),
        lambda cell: (cell / "config.json").write_text("{"),
        lambda cell: (cell / "reconstruction.safetensors").write_bytes(b"1"),
    ],
    ids=["altered", "without-result", "without-marker", "cut-marker", "cut-tensors"],
)
def test_a_damaged_cell_is_noticed_and_computed_anew(uninterrupted, damage, tmp_path):
    import shutil

    copy = Path(shutil.copytree(uninterrupted, tmp_path / "copy"))
    damage(copy / "cells" / expand(study())[0].key)
    assert Store(copy).state(expand(study())[0].key) == "damaged"
    found = run_study(study(), copy)
    assert (found.reused, found.done) == (3, 1)
    assert contents(copy) == contents(uninterrupted)
    assert list((copy / "partial").iterdir()) == []


def test_what_a_killed_worker_left_half_written_is_swept_away(tmp_path, uninterrupted):
    left = tmp_path / "partial" / f"{expand(study())[0].key}-12345"
    left.mkdir(parents=True)
    (left / "result.json").write_text("{")
    assert run_study(study(), tmp_path).complete
    assert not left.exists()
    assert contents(tmp_path) == contents(uninterrupted)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_study_killed_in_mid_run_and_resumed_gives_the_same_bytes(tmp_path, jobs):
    axes = {"attacks": [ATTACKS[0], {"name": "inverting_gradients", "iterations": 300}]}
    written = write(tmp_path / "tiny.yaml", axes=axes, seeds=[0, 1, 2])
    out, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = [*COMMAND, str(written), "--jobs", jobs, "--out"]
    process = subprocess.Popen(
        [*arguments, str(out)], env=environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not (out / "cells").is_dir() or len(list((out / "cells").glob("*/config.json"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    cells = expand(study(axes=axes, seeds=[0, 1, 2]))
    done = [cell for cell in cells if Store(out).done(cell.key)]
    assert 2 <= len(done) < len(cells), "the kill came too late to show anything"
    if jobs == "2":
        wait_until(lambda: not orphans(out), "workers outlive their parent")
    subprocess.run([*arguments, str(out)], env=environment(), check=True, capture_output=True)
    run_study(study(axes=axes, seeds=[0, 1, 2]), whole)
    write_conclusion(conclude(whole))
    assert contents(out) == contents(whole)
    for name in ("results.csv", "examples.csv", "claims.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def orphans(out: Path) -> list[str]:
    """Workers that were given this study and still live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, parent = entry.parent, entry.read_text().rpartition(")")[2].split()[1]
            words = (name / "cmdline").read_bytes()
            folder = os.readlink(name / "cwd")
        except OSError:
            continue
        if b"spawn_main" in words and parent == "1" and folder == os.getcwd():
            found.append(name.name)
    return found


def wait_until(true, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_two_processes_find_what_one_does(uninterrupted, tmp_path):
    axes = {"attacks": ATTACKS, "model.trained_epochs": [0, 1]}
    large = study(axes=axes, seeds=[0])
    assert run_study(large, tmp_path / "one").complete
    assert run_study(large, tmp_path / "two", jobs=2).complete
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_shards_make_the_whole(uninterrupted, tmp_path):
    parts = [run_study(study(), tmp_path, shard=(i, 2)) for i in (1, 2)]
    assert sum(part.done for part in parts) == 4
    assert contents(tmp_path) == contents(uninterrupted)
    assert parse_shard("2/8") == (2, 8)
    for wrong in ("0/2", "3/2", "2", "a/b", "1/"):
        with pytest.raises(ConfigurationError, match="i/n"):
            parse_shard(wrong)


def test_a_victim_is_trained_once_and_attacked_as_if_each_cell_had_trained_it(tmp_path, monkeypatch):
    from invertigo.auditing import staging

    trained = []
    pretrain = staging._pretrain

    def counted(task, scenario, public):
        trained.append(scenario.seed) if scenario.model.trained_epochs else None
        pretrain(task, scenario, public)

    monkeypatch.setattr(staging, "_pretrain", counted)
    axes = {"attacks": ["linear_layer", {"name": "dlg", "iterations": 2}], "model.trained_epochs": [1]}
    whole = study(axes=axes)
    assert run_study(whole, tmp_path).complete
    assert sorted(trained) == [0, 1]
    assert len(list((tmp_path / "artifacts").iterdir())) == 2


def test_a_shared_victim_changes_no_result(tmp_path):
    whole = study(axes=TRAINED, seeds=[4], examples=4)
    from invertigo import audit
    from invertigo.auditing import Scenario

    run_study(whole, tmp_path)
    cell = next(cell for cell in expand(whole) if cell.needs)
    record = Store(tmp_path).load(cell.key).record
    assert record is not None
    assert record.attacks[0].scores == audit(Scenario.model_validate(cell.config)).record.attacks[0].scores


def test_a_damaged_victim_is_trained_anew(tmp_path):
    whole = study(axes=TRAINED, seeds=[0])
    run_study(whole, tmp_path)
    (weights,) = tmp_path.glob("artifacts/*/weights.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    cell = next(cell for cell in expand(whole) if cell.needs)
    (tmp_path / "cells" / cell.key / "result.json").unlink()
    assert run_study(whole, tmp_path).complete
    assert weights.read_bytes() == content


@pytest.fixture
def failing(monkeypatch):
    """A data set that cannot be staged while the flag is up."""
    from invertigo.auditing import auditor

    flag = {"up": True}
    audit = auditor.run_audit

    def run_audit(case, **options):
        if flag["up"] and options["seed"] == 1:
            raise RuntimeError("no luck today")
        return audit(case, **options)

    monkeypatch.setattr(auditor, "run_audit", run_audit)
    return flag


def test_a_failed_cell_keeps_its_traceback_and_runs_again_when_asked(tmp_path, failing, uninterrupted):
    found = run_study(study(), tmp_path)
    assert (found.done, len(found.failed)) == (2, 2)
    assert set(found.failed.values()) == {"RuntimeError: no luck today"}
    key = next(iter(found.failed))
    assert "in run_audit" in (Store(tmp_path).load(key).failure or "")
    assert "no luck today" in (tmp_path / "cells" / key / "log.txt").read_text()
    failing["up"] = False
    again = run_study(study(), tmp_path)
    assert (again.reused, again.done, set(again.failed)) == (2, 0, set(found.failed))
    assert run_study(study(), tmp_path, retry_failed=True).complete
    assert contents(tmp_path) == contents(uninterrupted)


def test_a_result_that_time_cut_short_is_no_result(tmp_path):
    slow = {**BASE, "budget": 0.5, "attacks": [{"name": "inverting_gradients", "iterations": 3000}]}
    found = run_study(study(base=slow, axes={}, seeds=[0]), tmp_path)
    assert list(found.failed.values())
    assert "ran out of time (budget 0.5" in next(iter(found.failed.values()))


def test_an_unwritable_place_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        run_study(study(), tmp_path / "file" / "study")


def test_a_full_disk_leaves_earlier_cells_whole(tmp_path, uninterrupted):
    """The limit on a file's size is met by the tensors of eight images and by nothing before them."""
    large = {"attacks": ["linear_layer"], "data.count": [2, 200]}
    written = write(tmp_path / "tiny.yaml", axes=large, seeds=[0], base={**BASE, "model": {"name": "mlp"}})
    out = tmp_path / "out"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    ended = subprocess.run(
        [*COMMAND, str(written), "--out", str(out)], env=environment(), preexec_fn=limit, capture_output=True, text=True
    )
    assert ended.returncode == 2, ended.stderr
    assert "cannot be written" in ended.stderr
    assert "run the same command again" in ended.stderr
    small, big = expand(study(axes=large, seeds=[0]))
    assert Store(out).scan([small.key, big.key]) == {small.key: "done", big.key: "missing"}
    assert list((out / "partial").iterdir()) == []
    assert run_study(study(axes=large, seeds=[0]), out).reused == 1


def test_a_study_lies_on_any_file_system_that_fsspec_reads(uninterrupted):
    import fsspec

    url = "memory://bucket/study"
    assert run_study(study(axes=TRAINED, seeds=[0]), url).complete
    found = run_study(study(), url)
    assert (found.reused, found.done) == (1, 3)
    store, cells = Store(url), expand(study())
    here = Store(uninterrupted).results(cells)
    for there, local in zip(store.results(cells), here):
        assert there.record is not None
        assert local.record is not None
        assert there.record.attacks[0].scores == local.record.attacks[0].scores
    system = fsspec.filesystem("memory")
    system.pipe_file(f"/bucket/study/cells/{cells[0].key}/result.json", b"{}")
    assert store.state(cells[0].key) == "damaged"
    assert run_study(study(), url).done == 1
    with pytest.raises(OutputError, match="no place"):
        Store("nowhere://x")


class Dying:
    """An executor whose workers never come back."""

    slots = 2

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def next(self) -> tuple[Job, Outcome]:
        return self.jobs.pop(0), Outcome("failed", error="Its process was killed 2 times")

    def close(self) -> None:
        self.jobs.clear()


def test_a_cell_whose_worker_is_lost_is_a_failed_cell(tmp_path):
    found = run_study(study(seeds=[0]), tmp_path, executor=Dying())
    assert len(found.failed) == 2
    assert Store(tmp_path).load(expand(study())[0].key).failure == "Its process was killed 2 times"


def test_cells_of_a_victim_that_cannot_be_trained_fail_with_its_reason(tmp_path):
    base = {**BASE, "data": {**BASE["data"], "public_count": 0}}
    found = run_study(study(base=base, axes=TRAINED, seeds=[0]), tmp_path)
    assert (found.done, len(found.failed)) == (1, 1)
    assert "set data.public_count above 0" in next(iter(found.failed.values()))


def test_a_killed_process_is_replaced_and_its_cell_runs_again(tmp_path):
    store = Store(tmp_path)
    store.place.prepare()
    cells = expand(study(axes={"attacks": [{"name": "inverting_gradients", "iterations": 300}]}))
    where = Processes(str(tmp_path), Resources(), jobs=1)
    where.submit(Job(cells[0]))
    wait_until(lambda: where.pools[0]._processes, "no process")
    (process,) = where.pools[0]._processes.values()
    time.sleep(1)
    process.kill()
    job, outcome = where.next()
    where.close()
    assert (job.spec.key, outcome.status) == (cells[0].key, "done")
    assert store.done(cells[0].key)


def test_threads_do_not_outnumber_cores_and_do_not_depend_on_the_executor(monkeypatch):
    from invertigo.studies import executors

    monkeypatch.setattr(executors, "cores", lambda: 8)
    assert Processes("x", Resources(cpus=4), jobs=8).slots == 2
    assert Processes("x", Resources(cpus=1), jobs=3).slots == 3
    assert Processes("x", Resources(cpus=1), jobs=20).slots == 8
    monkeypatch.setattr(executors, "cores", lambda: 2)
    assert Processes("x", Resources(cpus=1), jobs=8).slots == 2
    assert Processes("x", Resources(cpus=4), jobs=8).slots == 1
    assert isinstance(executor_for("x", Resources(), jobs=1), Here)
    assert isinstance(executor_for("x", Resources(), jobs=2), Processes)


def test_a_cell_leaves_the_threads_as_they_were(tmp_path):
    before = torch.get_num_threads()
    run_study(study(seeds=[0], axes={"attacks": ["linear_layer"]}, resources={"cpus": before + 1}), tmp_path)
    assert torch.get_num_threads() == before


def test_a_place_without_a_study_is_told(tmp_path):
    with pytest.raises(MissingDataError, match="no study"):
        read_study(Store(tmp_path))
    with pytest.raises(MissingDataError, match="has not been run"):
        Store(tmp_path).load("0" * 24)
