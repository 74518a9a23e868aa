from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

import invertigo
import invertigo.auditing
from invertigo.auditing import Audit, Stage
from invertigo.cli.app import app
from invertigo.types import InvertigoError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_version() -> None:
    assert run("--version").output.strip() == f"invertigo {invertigo.__version__}"


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("leaks", [], 1),
        ("resists", [], 0),
        ("leaks", ["--fail-if", "psnr.worst > 90"], 0),
        ("leaks", ["--fail-if", "psnr.worst > 90", "--fail-if", "recovered > 5"], 1),
        ("resists", ["--fail-if", "psnr.worst > 20"], 0),
        ("leaks", ["--fail-if", "pnsr > 20"], 2),
        ("leaks", ["--fail-if", "psnr"], 2),
        ("leaks", ["--format", "xml"], 2),
        ("leaks", ["--level", "0"], 3),
        ("nowhere", [], 2),
    ],
)
@pytest.mark.parametrize("layout", ["folder", "file"])
def test_exit_codes_of_check(results: Path, name: str, options: list[str], code: int, layout: str) -> None:
    path = results / name if layout == "folder" else results / name / "result.json"
    result = run("check", path, *options)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


def test_an_inconclusive_result_exits_with_3(leaking: Audit, tmp_path: Path) -> None:
    verdict = leaking.record.verdict.model_copy(update={"status": "inconclusive"})
    (tmp_path / "result.json").write_text(leaking.record.model_copy(update={"verdict": verdict}).model_dump_json())
    assert run("check", tmp_path, "--fail-if", "psnr > 90").exit_code == 3


def test_check_speaks_json_and_github(results: Path) -> None:
    told = json.loads(run("check", results / "leaks", "--format", "json").stdout)
    assert told[0]["status"] == "exceeded"
    assert told[0]["limits"][0]["value"] == 6
    github = run("check", results / "leaks", "--format", "github").stdout
    assert github.startswith("::error title=Invertigo::Faces on a sigmoid LeNet: recovered")
    assert run("check", results / "resists", "--format", "github").stdout.startswith("::notice")


def test_a_page_is_not_a_result_and_check_says_what_is(results: Path) -> None:
    told = run("check", results / "leaks" / "report.html")
    assert told.exit_code == 2
    assert "leaks/result.json" in told.output.replace("\n", "")


def test_resists_without_controls_passes_only_when_asked_to(resisting: Audit, tmp_path: Path) -> None:
    old = resisting.record.model_copy(update={"controls": []})
    (tmp_path / "result.json").write_text(old.model_dump_json())
    assert run("check", tmp_path).exit_code == 3
    assert run("check", tmp_path, "--require-controls").exit_code == 3
    assert run("check", tmp_path, "--no-require-controls").exit_code == 0


def test_a_folder_of_results_is_as_good_as_its_worst(results: Path) -> None:
    assert run("check", results).exit_code == 1


def test_report_draws_results_again(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("report", results / "leaks", results / "resists", "--out", page, "--title", "Both").exit_code == 0
    text = page.read_text()
    assert text.count("<article") == 2
    assert "<h1>Both</h1>" in text
    assert run("report", results / "leaks", "--out", page, "--redact").exit_code == 0
    assert "data:image/" not in page.read_text()


@pytest.mark.parametrize("kind", ["attacks", "defenses", "guards", "domains", "data", "models", "scenarios"])
def test_list_names_everything_with_a_summary(kind: str) -> None:
    entries = json.loads(run("list", kind, "--json").stdout)
    assert all(entry["summary"] for entry in entries)
    text = run("list", kind)
    assert text.exit_code == 0
    assert all(entry["name"] in text.stdout for entry in entries)
    if kind in ("attacks", "domains", "data", "models", "scenarios"):
        assert entries


def test_show_tells_settings_with_defaults_and_the_paper() -> None:
    text = run("show", "lenet").stdout
    assert "paper: Zhu et al. (2019)" in text
    assert "sigmoid" in text


def test_show_resolves_a_scenario(tmp_path: Path) -> None:
    assert yaml.safe_load(run("show", "demo").stdout)["local"]["learning_rate"] == 0.01
    file = tmp_path / "mine.yaml"
    file.write_text("title: Mine\nseed: 7\n")
    shown = yaml.safe_load(run("show", file).stdout)
    assert (shown["title"], shown["seed"], shown["local"]["mode"]) == ("Mine", 7, "train")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("show lenett", "Did you mean 'lenet'"),
        ("audit dem", "Did you mean 'demo'"),
        ("audit demo --set local.mod=eval", "Did you mean 'local.mode'"),
        ("audit demo --set local.mode", "no '='"),
        ("audit demo --budget soon", "budget"),
        ("audit missing.yaml", "missing.yaml"),
        ("doctor lenet --input-shape 3,32,many", "--input-shape"),
    ],
)
def test_a_mistake_is_one_paragraph_and_exit_code_2(line: str, words: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*line.split())
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())  # nothing was created for a run that could not start


def test_an_unwritable_folder_is_refused_before_anything_runs(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(invertigo.auditing, "audit", lambda *_, **__: pytest.fail("the audit ran"))
    result = run("audit", "demo", "--out", tmp_path / "file" / "below")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_debug_shows_the_traceback() -> None:
    assert isinstance(run("--debug", "show", "lenett").exception, InvertigoError)


class Calls(list):
    """Stands for `invertigo.auditing.audit`: notes how it was called, ticks once, returns a specimen."""

    def __init__(self, found: Audit) -> None:
        self.found = found

    def __call__(self, scenario: object, **options: object) -> Audit:
        self.append((scenario, options))
        if options["progress"]:
            stage = Stage(1, "dlg", 2, 5, done=300, total=1000, objective=0.012, seconds=3.0, seconds_left=4.0)
            options["progress"](stage)
        return self.found


@pytest.fixture
def calls(leaking: Audit, monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls(leaking)
    monkeypatch.setattr(invertigo.auditing, "audit", calls, raising=False)
    return calls


def test_audit_runs_tells_and_writes(calls: Calls, tmp_path: Path) -> None:
    line = ["audit", "demo", "--set", "local.mode=eval", "--budget", "5s", "--seed", "3", "--out", tmp_path]
    result = run(*line)
    assert result.exit_code == 0
    ((scenario, options),) = calls
    assert scenario.local.mode == "eval"
    assert (options["budget"], options["seed"]) == ("5s", 3)
    assert options["command"] == "invertigo audit demo --set local.mode=eval --budget 5s --seed 3"
    assert {f.name for f in tmp_path.iterdir()} == {"report.html", "result.json", "reconstruction.safetensors"}
    assert "LEAKS" in result.stdout
    assert result.stdout.strip().endswith("report.html")
    assert "rung 1 · dlg (2 of 5) · iteration 300 of 1000 · objective 0.012 · 4.0 s left" in result.stderr


def test_audit_prints_json_and_nothing_else(calls: Calls, leaking: Audit, tmp_path: Path) -> None:
    result = run("audit", "demo", "--json", "--redact", "--out", tmp_path)
    assert json.loads(result.stdout)["title"] == leaking.record.title
    assert result.stderr == ""
    assert not (tmp_path / "reconstruction.safetensors").exists()


def test_a_quiet_audit_prints_the_path_only(calls: Calls, tmp_path: Path) -> None:
    assert run("audit", "--quiet", "--out", tmp_path).stdout.split() == [str(tmp_path / "report.html")]


def test_an_interruption_is_not_a_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(invertigo.auditing, "audit", interrupted, raising=False)
    assert run("audit", "demo", "--out", tmp_path).exit_code == 130


def test_doctor_prints_its_findings_as_text_and_as_json() -> None:
    arguments = ["doctor", "mlp", "--input-shape", "1,8,8", "--classes", "3", "--batch-size", "2"]
    text = run(*arguments)
    found = run(*arguments, "--json")
    assert text.exit_code == found.exit_code == 0
    assert "first-layer-exact" in text.stdout
    assert "first-layer-exact" in {finding["code"] for finding in json.loads(found.stdout)["findings"]}
