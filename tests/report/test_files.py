from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from invertigo.auditing import Audit
from invertigo.report import ensure_writable, load, load_all, render_html, save, write_json
from invertigo.report.files import PAGE, RESULT, TENSORS, read_record
from invertigo.types import CorruptFileError, MissingDataError, OutputError, read_tensors


def private(audit: Audit) -> Audit:
    return dataclasses.replace(audit, record=audit.record.model_copy(update={"private": True}))


def test_what_was_saved_is_loaded(leaking: Audit, tmp_path) -> None:
    save(leaking, tmp_path / "out")
    found = load(tmp_path / "out")
    assert isinstance(found, Audit)
    assert found.record == leaking.record
    assert found.domain == leaking.domain
    assert found.reconstructions.keys() == leaking.reconstructions.keys()
    assert torch.equal(found.originals["images"], leaking.originals["images"])
    assert render_html(found) == (tmp_path / "out" / PAGE).read_text()
    assert load(tmp_path / "out" / RESULT).record == leaking.record


def test_no_leftovers_beside_the_result(leaking: Audit, tmp_path) -> None:
    save(leaking, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {PAGE, RESULT, TENSORS}


def test_private_originals_are_not_stored(leaking: Audit, tmp_path) -> None:
    save(private(leaking), tmp_path / "a")
    assert not any(name.startswith("truth/") for name in read_tensors(tmp_path / "a" / TENSORS))
    assert load(tmp_path / "a").originals is None
    save(private(leaking), tmp_path / "b", include_originals=True)
    assert load(tmp_path / "b").originals is not None


def test_a_redacted_result_takes_older_tensors_away(leaking: Audit, tmp_path) -> None:
    save(leaking, tmp_path)
    save(leaking, tmp_path, redact=True)
    assert not (tmp_path / TENSORS).exists()
    assert "data:image/" not in (tmp_path / PAGE).read_text()


def test_several_audits_have_a_folder_each(leaking: Audit, resisting: Audit, tmp_path) -> None:
    save([leaking, resisting], tmp_path)
    assert [audit.record.title for audit in load_all(tmp_path)] == [leaking.record.title, resisting.record.title]
    assert (tmp_path / PAGE).exists()


def test_infinite_scores_survive(leaking: Audit, tmp_path) -> None:
    best = leaking.record.attacks[1]
    infinite = best.model_copy(update={"scores": {**best.scores, "psnr": [math.inf] * 8}})
    audit = dataclasses.replace(leaking, record=leaking.record.model_copy(update={"attacks": [infinite]}))
    path = write_json(audit, tmp_path / RESULT)
    assert read_record(path).attacks[0].scores["psnr"] == [math.inf] * 8
    assert "∞" in render_html(audit)


def test_an_older_result_stays_when_writing_fails(leaking: Audit, tmp_path, monkeypatch) -> None:
    path = tmp_path / RESULT
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        write_json(leaking, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_folder_is_refused_before_computing(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"--out"):
        ensure_writable(tmp_path / "file" / "below")


@pytest.mark.parametrize(("text", "words"), [("{", "not a result"), ('{"title": 3}', "not a result"), ("[]", "result")])
def test_a_broken_result_says_so(tmp_path, text: str, words: str) -> None:
    (tmp_path / RESULT).write_text(text)
    with pytest.raises(CorruptFileError, match=words):
        load(tmp_path)


def test_a_folder_without_a_result_says_so(tmp_path) -> None:
    with pytest.raises(MissingDataError, match="no result"):
        load_all(tmp_path)


def test_corrupt_tensors_say_so(leaking: Audit, tmp_path) -> None:
    save(leaking, tmp_path)
    (tmp_path / TENSORS).write_bytes(b"\x80\x04pickle")
    with pytest.raises(CorruptFileError, match="safetensors"):
        load(tmp_path)
