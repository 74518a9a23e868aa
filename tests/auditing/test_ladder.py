import pytest

from invertigo.auditing.ladder import climb, plan_ladder
from invertigo.auditing.record import AttackRecord
from invertigo.types import ThreatLevel


def attacked(native, **facts):
    facts = {"mode_matters": True} | facts
    return [int(r.level) for r in plan_ladder(ThreatLevel(native), **facts) if r.attacked]


def reason(native, level, **facts):
    facts = {"mode_matters": True} | facts
    return plan_ladder(ThreatLevel(native), **facts)[level].reason


def attack(level, outcomes, name="a", scores=None, **facts):
    scores = scores or [10.0] * len(outcomes)
    return AttackRecord(
        level=level,
        attack=name,
        paper="p",
        exact=False,
        status="ran",
        outcomes=outcomes,
        scores={"psnr": scores},
        **facts,
    )


def test_a_training_mode_client_is_examined_on_rungs_one_to_three():
    assert attacked(1) == [1, 2, 3]
    assert "what-if" in reason(1, 3)
    assert "one client" in reason(1, 0)
    assert "malicious-server" in reason(1, 5)


def test_an_inference_mode_client_is_examined_on_rung_three_only():
    assert attacked(3) == [3]
    assert "already gives what rung 3 needs" in reason(3, 1)
    assert reason(3, 3) == ""


def test_rung_three_is_not_repeated_when_the_mode_does_not_matter():
    rungs = plan_ladder(ThreatLevel.UPDATE, mode_matters=False)
    assert [int(r.level) for r in rungs if r.attacked] == [1, 2]
    assert rungs[3].examined
    assert rungs[3].same_as == ThreatLevel.STATISTICS
    only_third = plan_ladder(ThreatLevel.UPDATE, mode_matters=False, requested=[3])
    assert only_third[3].attacked


def test_the_sum_of_clients_and_public_data_open_further_rungs():
    assert attacked(1, clients=3) == [0, 1, 2, 3]
    assert attacked(1, public=True, public_attacks=True) == [1, 2, 3, 4]
    assert "makes use of public data" in reason(1, 4, public=True)
    assert "no public data" in reason(1, 4)


def test_the_users_choice_of_rungs_is_kept():
    assert attacked(1, requested=[1]) == [1]
    assert reason(1, 2, requested=[1]) == "not asked for"


def test_a_higher_rung_inherits_what_a_lower_one_rebuilt():
    rungs = plan_ladder(ThreatLevel.UPDATE, mode_matters=True)
    records = [attack(1, ["exact", "nothing"], "low"), attack(2, ["nothing", "nothing"], "high", scores=[30.0, 30.0])]
    levels = climb(rungs, records, "psnr", 1)
    assert levels[0].strongest is None
    assert [(le.strongest, le.strongest_level, le.recovered) for le in levels[1:4]] == [("low", 1, 1)] * 3


def test_a_lower_rung_does_not_borrow_from_a_higher_one():
    rungs = plan_ladder(ThreatLevel.UPDATE, mode_matters=True)
    levels = climb(rungs, [attack(3, ["exact"])], "psnr", 1)
    assert [le.recovered for le in levels] == [0, 0, 0, 1, 1, 1]


def test_among_equals_the_better_headline_score_wins_in_either_direction():
    rungs = plan_ladder(ThreatLevel.UPDATE, mode_matters=True)
    records = [attack(1, ["nothing"], "ten", [10.0]), attack(1, ["nothing"], "twenty", [20.0])]
    assert climb(rungs, records, "psnr", 1)[1].strongest == "twenty"
    assert climb(rungs, records, "psnr", -1)[1].strongest == "ten"


def test_a_rung_on_which_every_attack_refused_was_not_examined():
    rungs = plan_ladder(ThreatLevel.UPDATE, mode_matters=True)
    refused = attack(2, []).model_copy(update={"status": "refused", "reason": "It needs more."})
    levels = climb(rungs, [attack(1, ["nothing"]), refused], "psnr", 1)
    assert levels[1].examined
    assert not levels[2].examined
    assert levels[2].reason == "no attack of this audit could read it: It needs more."
    assert climb(rungs, [attack(2, ["nothing"]), refused], "psnr", 1)[2].examined


def test_the_interval_is_that_of_the_recovered_share():
    rungs = plan_ladder(ThreatLevel.UPDATE, mode_matters=True)
    low, high = climb(rungs, [attack(1, ["exact"] * 4)], "psnr", 1)[1].recovered_interval
    assert 0.5 < low < high == 1.0  # Wilson: four of four is no certainty


@pytest.mark.parametrize("level", list(ThreatLevel))
def test_every_rung_is_listed_once(level):
    rungs = plan_ladder(ThreatLevel.UPDATE, mode_matters=True)
    assert rungs[int(level)].level == level
    assert len(rungs) == 6
