from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from invertigo.cli.app import app
from invertigo.studies.spec import load_study

STUDY = {
    "name": "digits",
    "base": {"data": {"name": "digits", "count": 2, "public_count": 20}, "attacks": ["linear_layer"]},
    "axes": {
        "hidden": [{"label": n, "set": {"model.name": "mlp", "model.options": {"hidden": [n]}}} for n in (64, 128)]
    },
    "seeds": [0, 1],
    "claims": [
        {
            "name": "perceptrons-leak",
            "sentence": "A perceptron gives its inputs away.",
            "threshold": {"value": "recovered.share", "op": ">", "number": 0.1},
        }
    ],
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("studies")
    (home / "study.yaml").write_text(yaml.safe_dump(STUDY))
    result = run("study", home / "study.yaml", "--out", home / "out")
    assert result.exit_code == 0, result.output
    assert "A perceptron gives its inputs away." in result.output
    return home / "out"


def test_a_study_ends_with_its_claims_results_and_page(folder):
    (claim,) = json.loads((folder / "claims.json").read_text())
    assert claim["name"] == "perceptrons-leak"
    assert claim["n"] == 4
    assert claim["status"] in ("holds", "inconclusive")
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert [row["hidden"] for row in rows if row["strongest"] == "true"] == ["64", "64", "128", "128"]
    assert "Every cell" in (folder / "report.html").read_text()


def test_table_prints_markdown_csv_and_latex(folder):
    table = run("table", folder, "--rows", "attack", "--columns", "hidden", "--value", "psnr.mean")
    assert table.exit_code == 0, table.output
    assert table.stdout.startswith("| attack")
    assert "linear_layer" in table.stdout
    rows = list(csv.DictReader(io.StringIO(run("table", folder, "-r", "hidden,seed", "--format", "csv").stdout)))
    assert len(rows) == 4
    assert float(rows[0]["psnr.mean"]) > 0
    assert "\\toprule" in run("table", folder, "-r", "hidden", "--format", "latex").stdout
    only = run("table", folder, "-r", "seed", "-w", "hidden=64", "--format", "csv")
    assert len(only.stdout.splitlines()) == 3


def test_table_names_the_nearest_axis(folder):
    result = run("table", folder, "--rows", "hiden")
    assert result.exit_code == 2
    assert "Did you mean 'hidden'" in result.output
    assert run("table", folder.parent).exit_code == 2


def test_report_draws_a_study(folder, tmp_path):
    result = run("report", folder, "--out", tmp_path / "page.html", "--redact")
    assert result.exit_code == 0, result.output
    assert "Redacted copy" in (tmp_path / "page.html").read_text()


def test_the_claims_of_packaged_studies_speak_of_their_own_axes():
    from invertigo.studies.axes import points
    from invertigo.studies.claims import check_claims

    study = load_study("inverting_gradients")
    check_claims(study.claims, {name: [p.label for p in points(name, items)] for name, items in study.axes.items()})
    assert len(study.claims) >= 3
