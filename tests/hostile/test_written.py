"""What is written: for its owner only, whole or not at all, and nothing of an earlier run is taken for this one's."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # the audits made by hand live there

from specimens import specimen

from invertigo.cli.app import app
from invertigo.report import begin, save
from invertigo.report.files import result_files
from invertigo.studies.spec import parse_study
from invertigo.studies.table import _inert
from invertigo.types import ConfigurationError, MissingDataError, OutputError


@pytest.fixture(scope="module")
def leaking():
    return specimen()


@pytest.fixture(scope="module")
def resisting():
    return specimen(noise=1.2, title="A client that keeps its data")


def test_only_the_owner_reads_a_result(leaking, tmp_path):
    save(leaking, tmp_path / "out", include_originals=True)
    for path in (tmp_path / "out", *(tmp_path / "out").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_folder_holds_the_result_that_was_saved_last(leaking, resisting, tmp_path):
    save([leaking, resisting], tmp_path)
    assert len(result_files(tmp_path)) == 2
    save(resisting, tmp_path)
    assert result_files(tmp_path) == [tmp_path / "result.json"]
    assert not list(tmp_path.glob("*/"))
    save([leaking, resisting], tmp_path)
    assert len(result_files(tmp_path)) == 2
    assert not (tmp_path / "result.json").exists()


def test_redacting_takes_away_the_tensors_of_earlier_runs(leaking, resisting, tmp_path):
    save([leaking, resisting], tmp_path, include_originals=True)
    save(leaking, tmp_path, redact=True)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_is_the_users_own_stays(leaking, tmp_path):
    (tmp_path / "1-notes").mkdir()
    (tmp_path / "1-notes/mine.txt").write_text("mine")
    (tmp_path / "mine.json").write_text("{}")
    save(leaking, tmp_path)
    assert (tmp_path / "1-notes/mine.txt").exists()
    assert (tmp_path / "mine.json").exists()


def test_an_earlier_result_does_not_pass_for_a_run_that_did_not_end(resisting, tmp_path):
    save(resisting, tmp_path)
    assert CliRunner().invoke(app, ["check", str(tmp_path)]).exit_code in (0, 3)
    begin(tmp_path)
    answer = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert answer.exit_code == 2
    assert "did not end" in answer.stderr
    with pytest.raises(MissingDataError):
        result_files(tmp_path)


@pytest.mark.parametrize("file", ["result.json", "reconstruction.safetensors", "report.html"])
def test_a_full_disk_is_told_in_a_sentence(leaking, tmp_path, monkeypatch, file):
    replace = os.replace

    def full(source, target):
        if Path(target).name == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        save(leaking, tmp_path)
    with pytest.raises(MissingDataError):
        result_files(tmp_path)


def test_tensors_that_cannot_be_written_are_told_in_a_sentence(leaking, tmp_path, monkeypatch):
    import safetensors.torch
    from safetensors import SafetensorError

    def refuse(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    with pytest.raises(OutputError, match="No space left"):
        save(leaking, tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "a/b", ".hidden", "x" * 300])
def test_a_study_cannot_leave_its_folder(name):
    with pytest.raises(ConfigurationError, match="name"):
        parse_study({"name": name})


@pytest.mark.parametrize(
    ("label", "written"),
    [("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+a", "'+a"), ("-1.5", "-1.5"), (-2, -2), ("a", "a"), ("", "")],
)
def test_no_cell_of_a_table_is_a_formula(label, written):
    assert _inert(label) == written
