"""A study that lies on an object store: run, tabulated, checked and drawn by its URL, pictures and all."""

from __future__ import annotations

import json
import uuid

import fsspec
import pytest
from grids import write
from typer.testing import CliRunner

from invertigo.cli.app import app
from invertigo.report import load, read_records
from invertigo.studies.conclusion import conclude
from invertigo.studies.store import Store
from invertigo.types import MissingDataError

ONE = {"axes": {"attacks": ["linear_layer"]}, "seeds": [0]}


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def place(request, monkeypatch):
    """A URL where nothing is yet: in memory, or on an S3 server of this machine."""
    if request.param == "memory":
        yield f"memory://bucket-{uuid.uuid4().hex}/study"
        return
    server_of = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    fsspec.filesystem("s3").mkdir("audits")
    yield f"s3://audits/{uuid.uuid4().hex}/study"
    server.stop()


def invoke(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_study_by_its_url(place, tmp_path, monkeypatch):
    written = write(tmp_path / "tiny.yaml", **ONE)
    monkeypatch.chdir(tmp_path)
    ran = invoke("study", written, "--out", place, "--quiet")
    assert ran.exit_code == 0, ran.stderr
    assert not (tmp_path / place.split(":")[0]).exists(), "a URL was taken for a folder"
    assert invoke("study", written, "--out", place, "--quiet").exit_code == 0

    (cell,) = Store(place).place.names("cells")
    page = Store(place).place.read("report.html")
    assert page is not None
    assert b"data:image/png" in page, "the page beside the cells has no picture"

    drawn = invoke("report", place, "--out", tmp_path / "page.html")
    assert drawn.exit_code == 0, drawn.stderr
    assert "data:image/png" in (tmp_path / "page.html").read_text()
    assert f"{place}/cells/{cell}" in (tmp_path / "page.html").read_text()
    assert "data:image/png" not in _redacted(place, tmp_path)

    table = invoke("table", place, "--rows", "attacks")
    assert "linear_layer" in table.stdout
    assert "–" not in table.stdout

    checked = invoke("check", f"{place}/cells/{cell}")
    assert checked.exit_code == 1, "linear_layer rebuilds digits from a perceptron"
    assert json.loads(invoke("check", f"{place}/cells/{cell}/result.json", "--format", "json").stdout)[0]["limits"]
    assert read_records(f"{place}/cells")[0] == load(f"{place}/cells/{cell}").record
    with pytest.raises(MissingDataError, match="no result at"):
        load(f"{place}/nothing")


def _redacted(place, tmp_path) -> str:
    invoke("report", place, "--out", tmp_path / "redacted.html", "--redact")
    return (tmp_path / "redacted.html").read_text()


def test_shards_conclude_their_own_part_and_one_command_all(tmp_path):
    written = write(tmp_path / "tiny.yaml", axes={"attacks": ["linear_layer"]}, seeds=[0, 1, 2])
    out = tmp_path / "out"
    for part in ("1/2", "2/2"):
        ran = invoke("study", written, "--out", out, "--shard", part, "--quiet")
        assert ran.exit_code == 0, ran.stderr
        assert f"to conclude all parts: invertigo report {out}" in ran.stderr
        assert not (out / "results.csv").exists(), "a part concluded all"
    parts = [(out / "parts" / f"{i}-of-2" / "results.csv").read_text().splitlines() for i in (1, 2)]
    assert sum(len(lines) - 1 for lines in parts) == 3
    assert invoke("report", out, "--out", out / "report.html").exit_code == 0
    whole = (out / "results.csv").read_text().splitlines()
    assert sorted(whole[1:]) == sorted(line for lines in parts for line in lines[1:])
    assert len([result for result in conclude(out).results if result.record]) == 3
