import pytest

from invertigo.auditing.flags import RULES, Evidence, raise_flags
from invertigo.auditing.record import (
    AttackRecord,
    BaselineRecord,
    ControlRecord,
    DefenseRecord,
    FlagRecord,
    MetricRecord,
    UtilityRecord,
)

PSNR = MetricRecord(name="psnr", label="PSNR", privacy_loss=True)
MSE = MetricRecord(name="mse", label="MSE", privacy_loss=False)


DECIBELS = PSNR.model_copy(update={"unit": "dB"})


def attack(**facts):
    facts = {
        "level": 1,
        "attack": "a",
        "paper": "p",
        "exact": False,
        "status": "ran",
        "stopped": "schedule",
        "scores": {"psnr": [20.0, 30.0]},
        "outcomes": ["recognisable", "recognisable"],
        "labels": "inferred",
    } | facts
    return AttackRecord(**facts)


def evidence(*attacks, **facts):
    baseline = BaselineRecord(name="mean", label="mean image", scores={"psnr": [12.0, 14.0]})
    facts = {"metrics": [PSNR], "baselines": [baseline], "num_examples": 64, "decoys": 100} | facts
    return Evidence(attacks=attacks or (attack(),), **facts)


def shield(**facts):
    return DefenseRecord(**{"name": "d", "paper": "p", "settings": {"k": 1}, "releases": 4, "undefended": 0} | facts)


def learned(accuracy, **facts):
    given = {"rounds": 1, "clients": 1, "dirichlet": None, "batch_size": 1, "learning_rate": 0.1, "examples": 1}
    given |= {"test": 1, "curve": [], "seconds": 1.0, "bytes": 1.0, "raw_bytes": 1.0, "chance": 0.1}
    return UtilityRecord(accuracy=accuracy, **(given | facts))


def codes(found):
    return [flag.code for flag in raise_flags(found)]


CASES = {
    "vanishing_update": evidence(relative_norm=1e-9),
    "interrupted": evidence(interrupted=True),
    "attack_failed": evidence(attack(), attack(status="failed", reason="ValueError: x", outcomes=[], scores={})),
    "did_not_converge": evidence(attack(stopped="budget")),
    "below_baseline": evidence(attack(scores={"psnr": [12.0, 13.0]}, outcomes=["nothing", "nothing"])),
    "doubtful_recognition": evidence(attack(outcomes=["nothing", "exact"], doubtful=[0])),
    "unrecognised_likeness": evidence(
        attack(scores={"psnr": [20.0, 22.0]}, outcomes=["nothing", "nothing"]), metrics=[DECIBELS]
    ),
    "identified_beyond_chance": evidence(attack(outcomes=["nothing"] * 2, ranks=[1, 1], decoys=100)),  # 1 in 101²
    "outside_range": evidence(outside_range=0.5),
    "optimiser_failed": evidence(
        attack(outcomes=["nothing", "nothing"]),
        controls=[ControlRecord(name="fit", status="failed", summary="It failed.")],
    ),
    "no_positive_control": evidence(controls=[ControlRecord(name="positive", status="failed", summary="Nothing.")]),
    "labels_given": evidence(attack(labels="given")),
    "statistics_assumed": evidence(attack(level=2), statistics_assumed_from=2),
    "range_inferred": evidence(range_inferred=True),
    "no_decoys": evidence(decoys=0),
    "few_decoys": evidence(decoys=40),
    "borrowed_decoys": evidence(borrowed="photos"),
    "dropout_unmodelled": evidence(dropout=True),
    "exact_beats_optimiser": evidence(attack(exact=True), attack(outcomes=["nothing", "recognisable"])),
    "not_identified": evidence(attack(residual=1e-6, outcomes=["nothing", "exact"])),
    "update_unexplained": evidence(attack(residual=0.9)),
    "short_schedule": evidence(curtailed=[("a", "iterations", 480, 4800), ("not run", "restarts", 1, 100)]),
    "few_examples": evidence(num_examples=29),
    "narrow_layers": evidence(remarks=[FlagRecord(code="narrow_layers", severity="warning", message="x")]),
    "nothing_learned": evidence(utility=learned(0.14)),
    "inert_defense": evidence(defense=shield(undefended=4)),
    "undefended_releases": evidence(defense=shield(undefended=3)),
    "no_informed_attack": evidence(defense=shield(uninformed="it cannot be simulated.")),
    "naive_attack_weaker": evidence(
        attack(outcomes=["nothing", "recognisable"]), attack(informed=True), defense=shield(knows="k")
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_each_flag_is_raised_by_its_own_case_and_by_no_other(code):
    assert codes(CASES[code]) == [code]


def test_a_clean_audit_raises_nothing():
    assert codes(evidence()) == []


def test_every_rule_has_a_case():
    assert len(RULES) <= len(CASES)
    raised = {rule for rule in RULES for case in CASES.values() if list(rule(case))}
    assert raised == set(RULES)


@pytest.mark.parametrize(
    "near_miss",
    [
        evidence(attack(stopped="converged")),
        evidence(attack(level=1), statistics_assumed_from=2),
        evidence(attack(exact=True), attack()),
        evidence(attack(residual=0.2, outcomes=["nothing", "exact"])),
        evidence(attack(residual=0.9, exact=True)),
        evidence(attack(exact=True, residual=0.0, outcomes=["nothing", "exact"])),
        evidence(scored=False, decoys=0),
        evidence(num_examples=30),
        evidence(relative_norm=1e-5),
        evidence(outside_range=1e-4),
        evidence(attack(scores={"psnr": [17.9, 19.9]}, outcomes=["nothing", "nothing"]), metrics=[DECIBELS]),
        evidence(attack(scores={"psnr": [30.0, 22.0]}, outcomes=["exact", "recognisable"]), metrics=[DECIBELS]),
        evidence(attack(scores={"psnr": [12.0, 13.0]}, outcomes=["nothing", "exact"])),
        evidence(controls=[ControlRecord(name="fit", status="unknown", summary="It is not known.")]),
    ],
)
def test_near_misses_raise_nothing(near_miss):
    assert codes(near_miss) == []


def test_below_baseline_follows_the_direction_of_the_metric():
    baseline = BaselineRecord(name="mean", label="mean image", scores={"mse": [0.1, 0.1]})
    facts = {"metrics": [MSE], "baselines": [baseline]}
    blind, better = (attack(scores={"mse": [s, s]}, outcomes=["nothing"] * 2) for s in (0.2, 0.01))
    assert codes(evidence(blind, **facts)) == ["below_baseline"]
    assert codes(evidence(better, **facts)) == []


def test_the_gravest_flag_comes_first():
    found = raise_flags(evidence(attack(stopped="budget"), num_examples=3, relative_norm=0.0))
    assert [flag.severity for flag in found] == ["fatal", "warning", "info"]


def test_messages_name_the_attack_and_the_rung():
    (flag,) = raise_flags(evidence(attack(stopped="budget"), attack(level=2, stopped="diverged")))
    assert "a (rungs 1, 2)" in flag.message


def test_a_defense_that_changes_the_model_is_not_called_inert():
    assert codes(evidence(defense=shield(undefended=4, replaces_task=True))) == []


def test_decibels_alone_show_that_a_naive_attack_was_weaker():
    psnr = PSNR.model_copy(update={"unit": "dB"})
    naive, informed = attack(scores={"psnr": [20.0, 22.0]}), attack(scores={"psnr": [24.0, 25.0]}, informed=True)
    (flag,) = raise_flags(evidence(naive, informed, metrics=[psnr], defense=shield(knows="k")))
    assert flag.code == "naive_attack_weaker"
    assert "21.0 dB instead of 24.5" in flag.message
    assert codes(evidence(naive, naive.model_copy(update={"informed": True}), metrics=[psnr], defense=shield())) == []


def test_a_defense_may_stop_the_learning_but_not_its_absence():
    assert codes(evidence(defense=shield(knows="k"), utility=learned(0.1, undefended_accuracy=0.9))) == []
    stuck = evidence(defense=shield(knows="k"), utility=learned(0.1, undefended_accuracy=0.1))
    assert codes(stuck) == ["nothing_learned"]
