from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from invertigo.cli.app import app
from invertigo.cli.study import StudyCommand, study
from invertigo.cli.study_progress import headline
from invertigo.studies.progress import Tally

TINY = {
    "name": "tiny",
    "base": {
        "data": {"name": "digits", "count": 1, "public_count": 20},
        "model": {"name": "mlp"},
        "adversary": {"levels": [1]},
        "decoys": 5,
    },
    "axes": {"attacks": ["linear_layer"], "local.mode": ["train", "eval"]},
    "presets": {"smoke": {"axes": {"local.mode": None}}},
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_a_study_runs_resumes_and_lays_out_its_results(tiny, tmp_path):
    first = run("study", tiny, "--out", tmp_path / "out")
    assert first.exit_code == 0, first.output
    assert "2 of 2 cells done" in first.output
    assert "linear_layer" in (tmp_path / "out" / "results.csv").read_text()
    assert json.loads((tmp_path / "out" / "claims.json").read_text()) == []
    again = run("study", tiny, "--out", tmp_path / "out")
    assert "2 of 2 cells done (2 before)" in again.output
    assert "linear_layer" in run("table", tmp_path / "out", "--rows", "attacks").output


def test_a_dry_run_says_what_would_run_and_runs_nothing(tiny, tmp_path):
    found = run("study", tiny, "--out", tmp_path / "out", "--dry-run")
    assert "cells: 2" in found.output
    assert "local.mode: train, eval" in found.output
    assert not (tmp_path / "out").exists()
    run("study", tiny, "--out", tmp_path / "out", "--preset", "smoke", "--quiet")
    found = run("study", tiny, "--out", tmp_path / "out", "--dry-run")
    assert "done 1, failed 0, damaged 0, to run 1" in found.output
    assert "time left on one worker" in found.output


def test_a_study_is_shown_at_every_scale(tiny):
    found = run("show", tiny).output
    assert "preset: none (it has smoke)" in found
    assert "preset: smoke" in found
    assert "cells: 1" in found


def test_studies_are_listed_and_shown_by_name():
    assert "inverting_gradients" in run("list", "studies").output
    assert json.loads(run("show", "--schema", "study").output)["title"] == "Study"
    assert "Did you mean 'study'" in run("show", "--schema", "stdy").output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "cpu"], "has no preset 'cpu'"),
        (["--shard", "3/2"], "i/n"),
        (["--out", "nowhere://x"], "no place"),
    ],
)
def test_what_cannot_be_run_is_told(tiny, options, said):
    found = run("study", tiny, *options)
    assert found.exit_code == 2
    assert said in found.output


def test_a_failed_cell_is_told_with_the_way_to_run_it_again(tiny, tmp_path, monkeypatch):
    from invertigo.auditing import auditor

    def broken(*arguments, **options):
        raise RuntimeError("no luck today")

    monkeypatch.setattr(auditor, "run_audit", broken)
    found = run("study", tiny, "--out", tmp_path / "out")
    assert found.exit_code == 1
    assert "2 failed" in found.output
    assert "no luck today" in found.output
    assert "--retry-failed" in found.output


@pytest.mark.parametrize(
    ("words", "ray"),
    [
        (["s.yaml", "--ray"], "start"),
        (["--ray", "s.yaml"], "start"),
        (["s.yaml", "--ray", "10.0.0.1:6379"], "10.0.0.1:6379"),
        (["--ray", "auto", "s.yaml"], "auto"),
        (["s.yaml"], None),
    ],
)
def test_ray_takes_an_address_or_none(words, ray):
    import typer

    single = typer.Typer()
    single.command(cls=StudyCommand)(study)
    command = typer.main.get_command(single)
    context = command.make_context("study", list(words))
    assert (context.params["ray"], context.params["study"]) == (ray, "s.yaml")


def test_the_line_says_done_running_failed_and_time_left():
    tally = Tally(total=40, reused=3, done=9, failed=1, running={"a": "x", "b": "y"})
    tally.started -= 100
    line = headline(tally)
    assert line.startswith("12 of 40 cells done (3 before) · 2 running · 1 failed · about 4 min 30 s left")
