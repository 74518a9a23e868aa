"""What was computed is shown, whatever has become of the code since; what no longer matches is counted and told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from grids import BASE, study
from typer.testing import CliRunner

from invertigo.cli.app import app
from invertigo.report.study import write_study
from invertigo.studies import expansion, house
from invertigo.studies.conclusion import conclude, write_conclusion
from invertigo.studies.expansion import expand
from invertigo.studies.plan import PLAN, write_plan
from invertigo.studies.run import run_study
from invertigo.studies.run import write_study as note_study
from invertigo.studies.store import Store
from invertigo.types import MissingDataError

NET = "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
OWN = {**BASE, "model": {"factory": "stays_net:make"}, "attacks": [{"name": "dlg", "iterations": 2}]}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ran")
    attacks = ["linear_layer", {"name": "dlg", "iterations": 2}]
    assert run_study(study(axes={"attacks": attacks}, seeds=[0]), folder).complete
    return folder


@pytest.fixture
def out(ran, tmp_path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "copy"))


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(map(str, arguments)))


def numbers(printed: str) -> list[str]:
    return [line.split("|")[2].strip() for line in printed.splitlines()[2:] if line.startswith("|")]


def test_reading_results_never_asks_the_code_for_their_keys(out, monkeypatch):
    def broken(*_, **__):
        raise AssertionError("keys were derived to read results")

    monkeypatch.setattr(expansion, "key_of", broken)
    found = conclude(out)
    assert [result.record is not None for result in found.results] == [True, True]
    assert found.notes() == []


def test_results_of_other_code_are_shown_counted_and_left_out_when_asked(out, monkeypatch):
    before = numbers(invoke("table", out).stdout)
    assert len(before) == 2
    assert "–" not in before
    monkeypatch.setattr(house, "own_print", lambda: "another")
    shown = invoke("table", out)
    assert numbers(shown.stdout) == before
    assert "2 of 2 cells no longer match the present code: changed since: invertigo" in shown.stderr
    assert numbers(invoke("table", out, "--matching").stdout) == ["–", "–"]
    write_conclusion(conclude(out))
    page = write_study(conclude(out), out / "report.html").read_text()
    assert "2 of 2 cells no longer match" in page


def test_an_empty_page_never_takes_the_place_of_a_full_one(out, monkeypatch):
    write_conclusion(conclude(out))
    write_study(conclude(out), out / "report.html")
    kept = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    monkeypatch.setattr(house, "own_print", lambda: "another")
    refused = invoke("report", out, "--out", out / "report.html", "--matching")
    assert refused.exit_code == 2
    assert "what was there stays" in refused.stderr
    with pytest.raises(MissingDataError):
        write_conclusion(conclude(out, matching=True))
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == kept


def test_results_survive_a_run_of_newer_code_that_was_killed_before_its_first_cell(out, monkeypatch):
    asked = study(axes={"attacks": ["linear_layer", {"name": "dlg", "iterations": 2}]}, seeds=[0])
    before = numbers(invoke("table", out).stdout)
    with monkeypatch.context() as newer:
        newer.setattr(house, "own_print", lambda: "another")
        write_plan(Store(out), expand(asked))
        found = conclude(out)
        assert len(found.standing.changed) == 2
        assert numbers(invoke("table", out).stdout) == before
        assert run_study(asked, out).done == 2
        fresh = conclude(out)
        assert fresh.notes() == []
        assert {result.key for result in fresh.results} == {cell.key for cell in expand(asked)}


def test_cells_of_another_form_of_the_study_are_not_passed_off_as_its_results(out):
    """The same places in the grid, but other decoys: not what the file asks for now."""
    changed = study(base={**BASE, "decoys": 6}, axes={"attacks": ["linear_layer", "dlg"]}, seeds=[0])
    note_study(Store(out), changed, None)
    write_plan(Store(out), expand(changed))
    found = conclude(out)
    assert found.empty
    assert "2 cells in this folder are of another form of the study" in " ".join(found.notes())


def test_results_of_a_version_that_wrote_down_neither_plan_nor_fingerprints(out):
    before = numbers(invoke("table", out).stdout)
    (out / PLAN).unlink()
    for marker in out.glob("cells/*/config.json"):
        kept = json.loads(marker.read_text())
        del kept["contents"]
        marker.write_text(json.dumps(kept))
    shown = invoke("table", out)
    assert numbers(shown.stdout) == before
    assert "2 of 2 cells no longer match the present code: changed since: what they rest on" in shown.stderr


def test_results_are_read_from_any_folder_and_after_a_comment(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "stays_net.py").write_text(NET)
    monkeypatch.chdir(home)
    assert run_study(study(base=OWN, axes={}, seeds=[0]), home / "out").done == 1
    before = invoke("table", "out").stdout
    (home / "stays_net.py").write_text("# why\n" + NET)
    assert invoke("table", "out").stderr == ""
    monkeypatch.chdir(tmp_path)
    shown = invoke("table", "home/out")
    assert shown.stdout == before
    assert "Not looked at, since it is not to be found from here: factory stays_net" in shown.stderr
    monkeypatch.chdir(home)
    (home / "stays_net.py").write_text(NET.replace("10)", "10, bias=False)"))
    assert (
        "1 of 1 cells no longer match the present code: changed since: factory stays_net"
        in invoke("table", "out").stderr
    )
