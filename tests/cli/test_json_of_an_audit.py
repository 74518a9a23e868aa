"""`audit --json` prints one object, whether or not others stand beside it, and `check` reads all of it."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from invertigo.cli.app import app
from invertigo.cli.audit import _one_object
from invertigo.report import read_records


def test_json_is_one_object_with_its_companions(leaking, resisting):
    alone = json.loads(_one_object([leaking.record]))
    beside = json.loads(_one_object([leaking.record, resisting.record, leaking.record]))
    assert alone.pop("companions") == []
    companions = beside.pop("companions")
    assert alone == beside == json.loads(leaking.record.model_dump_json())
    assert [one["title"] for one in companions] == [resisting.record.title, leaking.record.title]


def test_the_gate_looks_at_the_companions_too(leaking, resisting, tmp_path):
    """A client that leaks must not pass because another stands first."""
    file = tmp_path / "told.json"
    file.write_text(_one_object([resisting.record, leaking.record]))
    assert read_records(file) == [resisting.record, leaking.record]
    checked = CliRunner().invoke(app, ["check", str(file), "--fail-if", "recovered > 0"])
    assert checked.exit_code in (1, 3)
    assert leaking.record.title in checked.stdout
