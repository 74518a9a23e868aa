from __future__ import annotations

from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invertigo.auditing import Audit
from invertigo.auditing.record import AuditRecord, FlagRecord
from invertigo.report import check, parse_limit
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
