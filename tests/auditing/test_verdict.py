import pytest

from invertigo.auditing.ladder import climb, plan_ladder
from invertigo.auditing.record import CONTROLS, AttackRecord, ControlRecord, FlagRecord
from invertigo.auditing.verdict import Circumstances, decide
from invertigo.types import ThreatLevel


def attack(level=1, outcomes=("nothing", "nothing"), name="a", **facts):
    facts = {"exact": False, "status": "ran", "stopped": "schedule"} | facts
    return AttackRecord(
        level=level,
        attack=name,
        paper="p",
        outcomes=list(outcomes),
        scores={"psnr": [10.0] * len(outcomes)},
        **facts,
    )


def controls(**status):
    given = dict.fromkeys(CONTROLS, "passed") | status
    return tuple(ControlRecord(name=n, status=s, summary=f"The {n} {s}.") for n, s in given.items() if s)


def verdict(attacks, flags=(), requested=(1, 2), **facts):
    facts = {"noun": "image", "num_examples": 2, "controls": controls()} | facts
    levels = climb(
        plan_ladder(ThreatLevel.UPDATE, mode_matters=True, requested=list(requested)), list(attacks), "psnr", 1
    )
    return decide(levels, list(attacks), list(flags), Circumstances(**facts))


def test_leaks_on_the_lowest_rung_where_something_was_rebuilt():
    found = verdict([attack(1), attack(2, ["exact", "recognisable"], ranks=[1, 3], decoys=100)], remedies=("Do this.",))
    assert (found.status, found.level) == ("leaks", 2)
    assert "rebuilt 2 of 2 images recognisably, 1 of them exactly" in found.headline
    assert "On rung 1 below it, nothing was rebuilt" in found.detail
    assert "pick out 1 of 2 among 100 others" in found.detail
    assert found.remedy == "Do this."


def test_one_exact_example_is_enough_and_doubts_do_not_soften_it():
    found = verdict([attack(1, ["exact", "nothing"], stopped="budget")], interrupted=True)
    assert found.status == "leaks"
    assert found.headline == "An honest-but-curious server that sees one update rebuilt 1 of 2 images exactly."


def test_resists_needs_every_attack_to_have_run_to_its_end():
    finished = [attack(1), attack(2, stopped="converged"), attack(1, exact=True, stopped="exact", name="e")]
    found = verdict(finished)
    assert (found.status, found.level) == ("resists", None)
    assert "no proof" in found.detail


@pytest.mark.parametrize(
    ("attacks", "facts", "because"),
    [
        ([attack(1, stopped="budget")], {}, "did not run to the end"),
        ([attack(1, stopped="diverged")], {}, "did not run to the end"),
        ([attack(1), attack(2, (), status="failed", name="b")], {}, "b failed"),
        ([attack(1), attack(2, (), status="skipped", name="b")], {}, "no time left for b"),
        ([attack(1, (), status="refused")], {}, "no attack could run"),
        ([], {}, "no attack could run"),
        ([attack(1)], {"interrupted": True}, "interrupted"),
        ([attack(1, ())], {"scored": False}, "no truth"),
    ],
)
def test_anything_short_of_that_is_inconclusive_and_says_why(attacks, facts, because):
    found = verdict(attacks, **facts)
    assert found.status == "inconclusive"
    assert because in found.detail
    assert "no evidence of safety" in found.detail


def test_a_refused_attack_does_not_stand_in_the_way_when_another_one_ran():
    assert verdict([attack(1), attack(1, (), status="refused", name="b")]).status == "resists"


def test_a_fatal_flag_forbids_resists():
    flag = FlagRecord(code="x", severity="fatal", message="The update is empty.")
    assert verdict([attack(1)], [flag]).status == "inconclusive"
    assert verdict([attack(1)], [flag.model_copy(update={"severity": "warning"})]).status == "resists"


def test_without_truth_only_an_exact_solution_that_reproduces_the_update_leaks():
    solved = attack(1, (), exact=True, residual=1e-7, name="linear_layer", stopped="exact")
    found = verdict([solved], scored=False)
    assert (found.status, found.level) == ("leaks", 1)
    assert "reproduces the update" in found.headline
    assert verdict([solved.model_copy(update={"residual": 0.3})], scored=False).status == "inconclusive"
    assert verdict([solved.model_copy(update={"exact": False})], scored=False).status == "inconclusive"
    for short_of_proof in ("ambiguous", "converged", "schedule"):  # a part of the batch, or no equation left over
        open_ = solved.model_copy(update={"stopped": short_of_proof})
        assert verdict([open_], scored=False).status == "inconclusive"


def test_answers_that_the_update_does_not_tell_apart_are_no_sign_of_safety():
    open_ = attack(1, stopped="ambiguous")
    found = verdict([open_])
    assert found.status == "inconclusive"
    assert "does not tell which is the true one" in found.headline


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("status", ["failed", "unknown", "not_applicable", None])
def test_each_control_that_did_not_pass_takes_resists_away(name, status):
    found = verdict([attack(1)], controls=controls(**{name: status}))
    assert found.status == "inconclusive"
    assert name in found.detail
    assert any(name in sentence for sentence in found.missing)


def test_controls_do_not_soften_a_leak():
    assert verdict([attack(1, ["exact", "nothing"])], controls=()).status == "leaks"


def test_attacks_chosen_by_hand_speak_of_themselves_only():
    found = verdict([attack(1), attack(2, name="b")], automatic=False)
    assert found.status == "inconclusive"
    assert found.headline.startswith("Not rebuilt by a and b on rungs 1 and 2")
    assert "chosen by hand" in found.missing[0]
    assert verdict([attack(1, ["exact", "nothing"])], automatic=False).status == "leaks"


@pytest.mark.parametrize(
    "code",
    [
        "no_informed_attack",
        "no_decoys",
        "few_decoys",
        "doubtful_recognition",
        "unrecognised_likeness",
        "parameters_unwatched",
    ],
)
def test_some_warnings_forbid_resists(code):
    flag = FlagRecord(code=code, severity="warning", message="Something was not looked at.")
    assert verdict([attack(1)], [flag]).status == "inconclusive"


def test_an_attack_that_failed_on_a_rung_by_itself_still_counts_against_resists():
    alone = verdict([attack(1), attack(2, (), status="failed", name="b")])
    assert "b failed" in alone.detail


def test_an_inconclusive_verdict_says_how_much_time_would_finish_it():
    found = verdict([attack(1, stopped="budget")], needs_seconds=121.2)
    assert found.needs_seconds == 121.2
    assert "about 122 s" in found.remedy


def test_a_what_if_rung_is_told_as_one():
    found = verdict([attack(1), attack(3, ["exact", "exact"])], requested=(1, 3))
    assert found.level == 3
    assert "a what-if" in found.detail
