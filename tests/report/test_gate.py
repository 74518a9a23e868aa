from __future__ import annotations

import dataclasses
import json
from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invertigo.auditing import Audit
from invertigo.auditing.record import CONTROLS, AuditRecord, FlagRecord
from invertigo.report import check, parse_limit
from invertigo.report.gate import exit_code_of
from invertigo.types import ConfigurationError


def strongest(record: AuditRecord, metric: str, most=max) -> list[float]:
    return [most(values) for values in zip(*(a.scores[metric] for a in record.ran))]


def test_worst_is_worst_for_privacy(leaking: Audit) -> None:
    record = leaking.record
    psnr, mse = strongest(record, "psnr"), strongest(record, "mse", min)
    expected = {
        "psnr.worst": max(psnr),
        "psnr": max(psnr),
        "psnr.best": min(psnr),
        "psnr.mean": fmean(psnr),
        "psnr.median": median(psnr),
        "mse.worst": min(mse),
        "mse.best": max(mse),
        "recovered": record.attacks[1].recovered,
        "identified": 8,
        "labels.accuracy": 1.0,
        "level": 1,
    }
    for name, value in expected.items():
        (finding,) = check(record, [f"{name} > 0"]).findings
        assert finding.value == pytest.approx(value), name


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (["psnr.worst > 20"], 1),
        (["psnr.worst > 90"], 0),
        (["psnr.worst > 90", "recovered >= 1"], 1),
        (["mse.worst < 0.01"], 1),
        (["mse.worst < 1e-9"], 0),
        (["ssim.mean >= 0"], 1),
        (["level <= 1"], 1),
        (["level < 1"], 0),
        (["identified == 8"], 1),
        ([], 1),
    ],
)
def test_exit_codes_of_a_leak(leaking: Audit, limits: list[str], code: int) -> None:
    assert check(leaking.record, limits).exit_code == code


def test_no_limit_means_nothing_may_be_rebuilt(resisting: Audit) -> None:
    assert check(resisting.record).exit_code == 0
    assert check(resisting.record, ["level <= 5"]).exit_code == 0


def test_inconclusive_never_passes(resisting: Audit) -> None:
    record = resisting.record
    verdict = record.verdict.model_copy(update={"status": "inconclusive"})
    fatal = FlagRecord(code="vanishing_update", severity="fatal", message="The update is nothing.")
    doubtful = [record.model_copy(update={"verdict": verdict}), record.model_copy(update={"flags": [fatal]})]
    for one in doubtful:
        assert check(one, ["psnr.worst > 90"]).exit_code == 3
    assert "vanishing_update" in check(doubtful[1]).doubts[0]


def test_what_was_rebuilt_fails_a_build_whatever_else_is_in_doubt(leaking: Audit) -> None:
    verdict = leaking.record.verdict.model_copy(update={"status": "inconclusive"})
    fatal = FlagRecord(code="replay_differs", severity="fatal", message="Another step.")
    record = leaking.record.model_copy(update={"verdict": verdict, "flags": [fatal]})
    assert check(record, ["psnr.worst > 20"]).exit_code == 1
    assert check(record, ["mse < 0.01"]).exit_code == 1
    assert check(record, ["psnr.worst > 90"]).exit_code == 3
    # A limit in the other direction is not exceeded for certain: more attacks could take it back.
    assert check(record, ["psnr.worst < 90"]).exit_code == 3
    assert check(leaking.record, ["psnr.worst < 90"]).exit_code == 1


def test_one_audit_beyond_its_limit_fails_a_build_whatever_its_companions_say(leaking: Audit, resisting: Audit) -> None:
    verdict = resisting.record.verdict.model_copy(update={"status": "inconclusive"})
    leaks, holds = check(leaking.record), check(resisting.record)
    open_ = check(resisting.record.model_copy(update={"verdict": verdict}))
    assert (leaks.exit_code, open_.exit_code, holds.exit_code) == (1, 3, 0)
    assert exit_code_of([leaks, open_]) == exit_code_of([open_, holds, leaks]) == 1
    assert exit_code_of([holds, open_]) == 3
    assert exit_code_of([holds, holds]) == 0
    assert exit_code_of([]) == 3


@pytest.mark.parametrize("name", CONTROLS)
def test_resists_without_its_controls_does_not_pass(resisting: Audit, name: str) -> None:
    record = resisting.record
    kept = [control for control in record.controls if control.name != name]
    failed = [c.model_copy(update={"status": "failed"}) if c.name == name else c for c in record.controls]
    for controls in (kept, failed):
        doubtful = record.model_copy(update={"controls": controls})
        assert check(doubtful, ["psnr > 90"]).exit_code == 3
        assert name in check(doubtful).doubts[0]
        assert check(doubtful, ["psnr > 90"], require_controls=False).exit_code == 0
        with pytest.raises(AssertionError, match=name):
            dataclasses.replace(resisting, record=doubtful).assert_below(psnr=90)
        dataclasses.replace(resisting, record=doubtful).assert_below(psnr=90, require_controls=False)


def test_a_result_of_before_there_were_controls_still_loads(resisting: Audit) -> None:
    old = json.loads(resisting.record.model_dump_json())
    for key in ("controls", "portfolio"):
        del old[key]
    for key in ("missing", "needs_seconds"):
        del old["verdict"][key]
    for attack in old["attacks"]:
        for key in ("iterations", "planned_iterations", "seconds_needed", "doubtful"):
            del attack[key]
    assert check(AuditRecord.model_validate(old)).exit_code == 3


def test_what_was_not_measured_never_passes(leaking: Audit) -> None:
    record = leaking.record
    guessed = [a.model_copy(update={"labels": "given"}) for a in record.attacks]
    assert check(record.model_copy(update={"attacks": guessed}), ["labels.accuracy > 0.5"]).exit_code == 3
    blind = [a.model_copy(update={"scores": {}}) for a in record.attacks]
    assert check(record.model_copy(update={"attacks": blind}), ["psnr > 90"]).exit_code == 3
    broken = [a.model_copy(update={"scores": {"psnr": [float("nan")] * 8}}) for a in record.ran]
    assert check(record.model_copy(update={"attacks": broken}), ["psnr > 90"]).exit_code == 3
    assert check(record, ["psnr > 90"], level=0).exit_code == 3


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("psnr.wrost > 20", "Did you mean 'worst'"),
        ("pnsr > 20", "Did you mean 'psnr'"),
        ("labels.accurcy > 1", "Did you mean 'labels.accuracy'"),
        ("psnr.worst", "cannot be read"),
        ("psnr.worst > twenty", "cannot be read"),
        ("psnr.worst > 20; import os", "cannot be read"),
        ("__import__('os') > 1", "cannot be read"),
        ("psnr.worst != 1", "cannot be read"),
    ],
)
def test_a_limit_that_is_not_understood(leaking: Audit, text: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        parse_limit(text, leaking.record)


@given(
    metric=st.sampled_from(["psnr", "ssim", "mse"]),
    aggregate=st.sampled_from(["worst", "best", "mean", "median"]),
    comparison=st.sampled_from(["<", "<=", ">", ">=", "=="]),
    bound=st.floats(-1e6, 1e6),
    spaces=st.text(" \t", max_size=3),
)
def test_limits_read_back(leaking: Audit, metric, aggregate, comparison, bound, spaces) -> None:
    limit = parse_limit(f"{metric}.{aggregate}{spaces}{comparison}{spaces}{bound!r}", leaking.record)
    assert (limit.quantity, limit.aggregate, limit.comparison, limit.bound) == (metric, aggregate, comparison, bound)
