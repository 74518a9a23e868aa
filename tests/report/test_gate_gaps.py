"""What a gate must not let pass although nothing was rebuilt on the rungs in question: every record is made by hand."""

import pytest

from invertigo.auditing.ladder import climb, plan_ladder
from invertigo.auditing.record import CONTROLS, AttackRecord, AuditRecord, ControlRecord, FlagRecord, MetricRecord
from invertigo.auditing.result import Audit
from invertigo.auditing.verdict import Circumstances, decide
from invertigo.domains import Images
from invertigo.report import check
from invertigo.types import ThreatLevel

NOTHING, EXACT = ["nothing", "nothing"], ["exact", "exact"]


def attack(level=1, outcomes=(), name="a", status="ran", **facts):
    scores = {"psnr": [10.0 if one == "nothing" else 90.0 for one in outcomes]} if outcomes else {}
    facts = {"exact": False, "stopped": "schedule", "scores": scores, "outcomes": list(outcomes)} | facts
    return AttackRecord(level=level, attack=name, paper="p", status=status, **facts)


def record(*attacks, flags=(), doubtful=None, scored=True, **status):
    given = dict.fromkeys(CONTROLS, "passed") | status
    controls = [ControlRecord(name=name, status=one, summary="Made.") for name, one in given.items()]
    plan = plan_ladder(ThreatLevel.UPDATE, mode_matters=True, requested=(0, 1, 2, 3), clients=2)
    levels = climb(plan, attacks, "psnr", 1, doubtful)
    facts = Circumstances(num_examples=2, controls=tuple(controls), scored=scored)
    return AuditRecord(
        title="t", created="", version="", command="", seed=0, seconds=1, budget_seconds=1, scenario={}, domain={},
        num_examples=2, knowledge=[], baselines=[], citations={}, environment={}, attacks=list(attacks), levels=levels,
        flags=list(flags), controls=controls, verdict=decide(levels, attacks, flags, facts),
        metrics=[MetricRecord(name="psnr", label="PSNR", privacy_loss=True, unit="dB")],
    )  # fmt: skip


def asserting(found):
    return Audit(found, {}, None, Images((1, 2, 2)))


LEAK = attack(3, EXACT, "z")
DOUBT = FlagRecord(code="doubtful_recognition", severity="warning", message="A picture resembles a private one.")
CRASHED = attack(1, name="b", status="failed")
BELOW = {
    "an attack failed": (record(attack(1, NOTHING), CRASHED, LEAK), 1, "b failed"),
    "a picture resembles": (record(attack(1, NOTHING), LEAK, flags=[DOUBT]), 1, "doubtful"),
    "the rung says nothing": (
        record(attack(0, NOTHING), attack(1, EXACT), doubtful={0: "the mean is no step"}), 0, "nothing was examined"
    ),
    "its attacks failed": (record(attack(0, NOTHING), CRASHED, LEAK), 1, "rung 1 was not examined"),
}  # fmt: skip


@pytest.mark.parametrize("case", BELOW)
def test_below_a_leak_nothing_passes_for_absent_that_was_not_looked_for(case):
    found, level, because = BELOW[case]
    assert found.verdict.status == "leaks"
    for controls in (True, False):
        gate = check(found, level=level, require_controls=controls)
        assert gate.exit_code == 3
        assert because in " ".join(gate.doubts)
        with pytest.raises(AssertionError, match="not shown"):
            asserting(found).assert_below(level=level, require_controls=controls)
    assert check(found).exit_code == 1
    assert check(found, [f"level <= {level}"]).exit_code == 3


def test_below_a_leak_that_all_attacks_looked_for_a_level_passes():
    assert check(record(attack(1, NOTHING), LEAK), level=1).exit_code == 0
    assert check(record(attack(1, NOTHING), LEAK), ["level <= 2"]).exit_code == 0
    assert "no evidence of safety" not in record(attack(1, NOTHING), LEAK).verdict.detail


def test_the_words_about_rungs_below_a_leak_are_qualified():
    detail = record(attack(1, NOTHING), attack(1, name="b", status="failed"), LEAK).verdict.detail
    assert "On rung 1 below it, nothing was rebuilt, which is no evidence of safety there: b failed." in detail


def test_what_several_attacks_rebuilt_is_counted_together():
    found = record(attack(1, ["exact", "nothing"], ranks=[1, 2], decoys=100),
                   attack(1, ["nothing", "exact"], "b", ranks=[2, 1], decoys=100))  # fmt: skip
    assert check(found, ["recovered > 1"]).exit_code == 1
    assert check(found, ["identified > 1"]).exit_code == 1
    with pytest.raises(AssertionError, match="2 examples were rebuilt"):
        asserting(found).assert_below(recovered=1)
    assert "All attacks together rebuilt 2 of 2 examples." in found.verdict.detail


@pytest.mark.parametrize("controls", [True, False])
def test_a_certified_solution_is_a_leak_without_any_truth(controls):
    found = record(attack(exact=True, stopped="exact", residual=1e-7), scored=False, replay="unknown", fit="unknown")
    assert found.verdict.status == "leaks"
    assert check(found, require_controls=controls).exit_code == 1


def test_without_a_line_up_nobody_was_looked_for_in_it():
    found = record(attack(1, NOTHING), LEAK)
    assert check(found, ["identified > 0"], level=1).exit_code == 3


def test_a_verdict_without_anything_examined_does_not_pass():
    good = record(attack(1, NOTHING))
    assert (good.verdict.status, check(good).exit_code) == ("resists", 0)
    empty = [good.model_copy(update={"attacks": []}), good.model_copy(update={"levels": []})]
    for one in empty:
        for controls in (True, False):
            assert check(one, ["level <= 5"], require_controls=controls).exit_code == 3


@pytest.mark.parametrize(("residual", "code"), [(0.5, 3), (None, 3), (1e-5, 0)])
def test_a_search_that_got_stuck_after_a_leak_bounds_nothing(residual, code):
    found = record(attack(1, ["exact", "nothing"], residual_up_to_scale=residual), fit="not_applicable")
    assert check(found, ["recovered > 1"]).exit_code == code
    assert check(found).exit_code == 1
