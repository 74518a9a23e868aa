from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from handmade import attack, cell, grid
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from invertigo.studies.claims import Claim, check_claims
from invertigo.studies.estimates import correlation_interval, mean_interval, ratio_interval
from invertigo.studies.judgement import judge, judge_claim
from invertigo.types import ConfigurationError


def claim(**test: Any) -> Claim:
    return Claim.model_validate({"name": "c", "sentence": "A sentence.", **test})


def compare(**more: Any) -> Claim:
    test = {"value": "psnr.mean", "left": {"trained": "no"}, "right": {"trained": "yes"}}
    return claim(compare={**test, **more})


def noisy(low: float, high: float):
    """Untrained models leak `high` dB, trained ones `low` dB; seeds differ far more than that, but in pairs."""

    def psnr(seed: int, trained: str, **_: Any) -> list[float]:
        drawn = random.Random(f"{seed}{trained}")
        return [(high if trained == "no" else low) + 5 * seed + drawn.uniform(-0.5, 0.5) for _ in range(4)]

    return psnr


AXES = {"trained": ["no", "yes"], "model": ["a", "b"]}


@pytest.mark.parametrize(
    ("low", "high", "status"), [(8, 12, "holds"), (12, 8, "does not hold"), (10, 10, "inconclusive")]
)
def test_a_paired_comparison_ends_on_the_side_of_its_interval(low, high, status):
    found = judge_claim(compare(), grid(AXES, range(6), noisy(low, high)))
    assert found.status == status
    assert found.n == 12
    assert found.unit == "pairs of cells"
    assert found.low < found.estimate < found.high
    assert found.estimate == pytest.approx(high - low, abs=0.4)


def test_pairing_removes_what_seeds_have_in_common():
    cells = grid(AXES, range(6), noisy(8, 9))
    paired = judge_claim(compare(), cells)
    pooled = judge_claim(compare(paired_by=["model"]), cells)
    assert paired.high - paired.low < 1
    assert paired.status == "holds"
    assert pooled.n == 2  # one pair for each model, each averaged over its seeds
    assert pooled.estimate == pytest.approx(paired.estimate)


@pytest.mark.parametrize(
    ("bound", "status"),
    [
        ({"more_than": 3.0}, "holds"),
        ({"at_least": 5.0}, "does not hold"),
        ({"at_most": 5.0}, "holds"),
        ({"at_most": 3.0}, "does not hold"),
        ({"at_least": 4.0}, "inconclusive"),
        ({"ratio": 1.05}, "holds"),
        ({"ratio": 3.0}, "does not hold"),
    ],
)
def test_bounds_of_a_comparison(bound, status):
    assert judge_claim(compare(**bound), grid(AXES, range(6), noisy(8, 12))).status == status


def test_equality_is_no_more_but_at_least():
    cells = grid(AXES, range(3), lambda **_: [10.0, 12.0])
    assert judge_claim(compare(), cells).status == "does not hold"
    assert judge_claim(compare(at_least=0.0), cells).status == "holds"


def test_a_missing_a_failed_and_a_refused_cell_make_it_inconclusive_with_the_reason():
    whole = grid(AXES, range(6), noisy(8, 12))
    place = whole[0].coordinates
    for broken, said in [
        (cell(place, 0), "not computed yet"),
        (cell(place, 0, failure="Traceback ...\nRuntimeError: out of memory"), "RuntimeError: out of memory"),
        (cell(place, 0, [attack(status="refused", reason="first layer is a convolution")]), "first layer is a conv"),
    ]:
        found = judge_claim(compare(), [broken, *whole[1:]])
        assert found.status == "inconclusive"
        assert said in found.reason
        assert "1 of 12" in found.reason
        assert found.estimate is not None  # what was measured is still told
    lonely = judge_claim(compare(), whole[1:])
    assert lonely.status == "inconclusive"
    assert "no partner" in lonely.reason
    assert judge_claim(compare(), whole[6:][:0] or [whole[0]]).status == "inconclusive"


def test_many_cells_without_a_value_for_one_reason_are_told_once():
    missing = [cell({"trained": side}, 0) for side in ("no", "yes") for _ in range(9)]
    found = judge([compare()], missing)[0]
    assert found.reason.count("not computed yet") == 2
    assert "9 of 9 cells have no value" in found.reason
    assert " more" not in found.reason


def test_one_pair_of_cells_is_compared_by_example():
    def psnr(seed: int, trained: str) -> list[float]:
        return [10.0, 20.0, 30.0, 41.0] if trained == "yes" else [12.0, 22.5, 32.0, 43.0]

    found = judge_claim(compare(), grid({"trained": ["no", "yes"]}, [0], psnr))
    assert (found.status, found.n) == ("holds", 4)
    assert found.unit == "private examples of one cell"
    worst = judge_claim(compare(value="psnr.worst"), grid({"trained": ["no", "yes"]}, [0], psnr))
    assert (worst.status, worst.n) == ("inconclusive", 1)


def test_other_private_examples_are_never_paired():
    cells = [
        cell({"trained": name}, 0, [attack(psnr=[level, level + 1])], indices=indices)
        for name, level, indices in [("no", 20.0, [1, 2]), ("yes", 10.0, [3, 4])]
    ]
    assert judge_claim(compare(), cells).n == 1


def test_batches_of_one_point_pair_with_their_like_and_with_one_large_batch():
    small = [cell({"count": 1}, 0, [attack(psnr=[p])], block=i, skip=i, pool=3) for i, p in enumerate([20.0, 21, 22])]
    other = [cell({"count": 2}, 0, [attack(psnr=[p])], block=i, skip=i, pool=3) for i, p in enumerate([19.0, 20, 20])]
    large = cell({"count": 3}, 0, [attack(psnr=[12.0, 11.0, 10.0])], pool=3)
    by = {"value": "psnr.mean", "left": {"count": 1}}
    alike = judge_claim(claim(compare={**by, "right": {"count": 2}}), small + other)
    assert (alike.n, alike.unit) == (3, "pairs of cells")
    assert alike.estimate == pytest.approx(4 / 3)
    whole = judge_claim(claim(compare={**by, "right": {"count": 3}}), [*small, large])
    assert (whole.n, whole.unit) == (3, "private examples of one cell")
    assert whole.estimate == pytest.approx(10.0)
    assert whole.status == "holds"


def test_attack_and_rung_choose_within_a_cell():
    def attacks(seed: int) -> list:
        return [
            attack("dlg", 1, [10.0 + seed, 11.0]), attack("dlg", 2, [14.0 + seed, 15.0]),
            attack("idlg", 1, [30.0 + seed, 31.0]),
        ]  # fmt: skip

    cells = [cell({"model": "a"}, seed, attacks(seed)) for seed in range(8)]
    test = {"value": "psnr.mean", "left": {"level": 2}, "right": {"level": 1}, "where": {"attack": "dlg"}}
    known = judge_claim(claim(compare=test), cells)
    assert (known.status, known.estimate, known.n) == ("holds", pytest.approx(4.0), 8)
    strongest = judge_claim(claim(threshold={"value": "psnr.mean", "op": ">", "number": 25}), cells)
    assert strongest.estimate == pytest.approx(30.5 + 3.5 / 2)
    nobody = claim(threshold={"value": "psnr.mean", "where": {"attack": "nemo"}, "op": ">", "number": 5})
    assert "no attack called nemo" in judge_claim(nobody, cells).reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("psnr", 18.0), ("psnr.mean", 18.0), ("psnr.worst", 26.0), ("psnr.best", 10.0), ("psnr.median", 18.0),
        ("mse.worst", 10**-2.6), ("recovered", 1.0), ("recovered.share", 0.5), ("identified", 1.0),
        ("identified.share", 0.5), ("over_guess", 9.0), ("labels.accuracy", 0.75), ("residual", 0.25),
    ],
)  # fmt: skip
def test_every_value(value, expected):
    cells = [cell({}, seed, [attack(psnr=[10.0, 26.0], label_accuracy=0.75, residual=0.25)]) for seed in range(3)]
    found = judge_claim(claim(threshold={"value": value, "op": ">=", "number": 0}), cells)
    assert found.estimate == pytest.approx(expected)
    assert found.status == "holds"


@pytest.mark.parametrize(("slope", "status"), [(-3.0, "holds"), (3.0, "does not hold"), (0.0, "inconclusive")])
def test_an_order_is_decided_by_its_steps(slope, status):
    def psnr(seed: int, count: int) -> list[float]:
        drawn = random.Random(f"{seed}{count}")
        return [20 + slope * [1, 4, 8].index(count) + drawn.uniform(-0.3, 0.3) for _ in range(2)]

    test = {"value": "psnr.mean", "axis": "count", "along": [1, 4, 8], "direction": "decreasing"}
    found = judge_claim(claim(order=test), grid({"count": [1, 4, 8]}, range(8), psnr))
    assert found.status == status
    assert found.estimate == pytest.approx(-slope, abs=0.4)
    assert found.n == 8


def test_one_wrong_step_breaks_an_order():
    heights = {1: 20.0, 4: 10.0, 8: 12.0}
    cells = grid({"count": [1, 4, 8]}, range(4), lambda seed, count: [heights[count] + 0.1 * seed] * 2)
    test = {"value": "psnr.mean", "axis": "count", "along": [1, 4, 8], "direction": "decreasing"}
    found = judge_claim(claim(order=test), cells)
    assert (found.status, found.estimate) == ("does not hold", pytest.approx(-2.0))


@pytest.mark.parametrize(
    ("bound", "status"),
    [({"at_most": -0.5}, "holds"), ({"at_least": 0.5}, "does not hold"), ({"at_most": -0.97}, "inconclusive")],
)
def test_a_correlation_over_cells(bound, status):
    drawn = random.Random(4)
    cells = grid(
        {"count": list(range(1, 13))}, range(3), lambda seed, count: [30 - count + drawn.uniform(-1.5, 1.5)] * 2
    )
    found = judge_claim(claim(correlation={"x": "count", "y": "psnr.mean", **bound}), cells)
    assert found.status == status
    assert found.n == 36
    flat = claim(correlation={"x": "count", "y": "recovered", "at_least": 0.5})
    same = judge_claim(flat, grid({"count": [1, 2]}, [0, 1], lambda **_: [5.0]))
    assert same.status == "inconclusive"
    assert "vary" in same.reason


def test_an_axis_or_metric_that_these_results_lack_is_a_finding_not_a_crash():
    cells = grid(AXES, range(2), noisy(8, 12))
    lost = judge(
        [compare(where={"defense": "none"}), claim(threshold={"value": "lpips.mean", "op": ">", "number": 1})], cells
    )
    assert [one.status for one in lost] == ["inconclusive", "inconclusive"]
    assert "no axis 'defense'" in lost[0].reason
    assert "reports 'lpips'" in lost[1].reason


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "exactly one of"),
        ({"threshold": {"value": "psnr", "op": "~", "number": 1}}, "op"),
        ({"threshold": {"value": "psnr.average", "op": ">", "number": 1}}, "is no value of a cell"),
        ({"compare": {"value": "psnr", "left": {}, "right": {}, "at_least": 1, "ratio": 2}}, "one bound"),
        ({"correlation": {"x": "a", "y": "psnr"}}, "at_least"),
        ({"threshold": {"value": "psnr", "op": ">", "number": 1}, "whose": "paper"}, "source"),
        ({"threshold": {"value": "psnr", "op": ">", "number": 1}, "sorce": "x"}, "sorce"),
    ],
)
def test_a_claim_that_cannot_be_understood_is_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        claim(**wrong)


def test_claims_are_held_against_the_axes_before_anything_runs():
    check_claims([compare()], AXES)
    with pytest.raises(ConfigurationError, match="Did you mean 'trained'"):
        check_claims([compare(left={"traind": "no"})], AXES)
    with pytest.raises(ConfigurationError, match="no value 'never'"):
        check_claims([compare(left={"trained": "never"})], AXES)
    with pytest.raises(ConfigurationError, match="Two claims"):
        check_claims([compare(), compare()], AXES)
    with pytest.raises(ConfigurationError, match="no axis 'epochs'"):
        check_claims([compare(paired_by=["epochs"])], AXES)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=9))
def test_few_values_never_give_an_interval_narrower_than_students(values):
    found = mean_interval(values)
    assert found.low <= found.estimate <= found.high
    sem = stats.sem(values)
    if sem > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, sum(values) / len(values), sem)
        assert found.low <= low + 1e-6
        assert found.high >= high - 1e-6


def test_a_rank_correlation_is_scipys():
    drawn = random.Random(1)
    x = [drawn.randint(0, 5) for _ in range(40)]
    y = [v + drawn.gauss(0, 2) for v in x]
    found = correlation_interval(x, y)
    assert found is not None
    assert found.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.estimate < found.high <= 1
    assert correlation_interval([1, 1], [2, 3]) is None


def test_intervals_of_very_many_values_come_from_normal_theory_and_agree():
    drawn = random.Random(2)
    values = [drawn.gauss(3, 1) for _ in range(2500)]
    many, fewer = mean_interval(values), mean_interval(values[:2000])
    assert many.high - many.low == pytest.approx((fewer.high - fewer.low) * (2000 / 2500) ** 0.5, rel=0.1)
    ratio = ratio_interval(values, [2.0] * 2500)
    assert ratio is not None
    assert ratio.estimate == pytest.approx(many.estimate / 2)
    assert ratio_interval([1.0, 2.0], [-1.0, 0.0]) is None


def trained_client(defense: str, accuracy: float, *, seed: int = 0, block: int = 0, method: str = "dlg"):
    """A cell of a study with two attacks, whose client's training was made once for a defense and a seed."""
    from invertigo.auditing.record import UtilityRecord

    found = cell(
        {"defense": defense, "attack": method}, seed, [attack(method, psnr=[10.0 + block])], block=block, skip=block
    )
    utility = UtilityRecord(
        rounds=1, clients=1, dirichlet=None, batch_size=1, learning_rate=0.1, examples=10, test=10, accuracy=accuracy,
        curve=[(1, accuracy)], diverged=False, chance=0.5, undefended_accuracy=None, undefended_curve=[],
        undefended_share=0.0, seconds=1.0, undefended_seconds=None, bytes=1.0, raw_bytes=1.0, facts={},
    )  # fmt: skip
    record = found.record.model_copy(
        update={"utility": utility, "scenario": {**found.record.scenario, "defense": {"name": defense}}}
    )
    return dataclasses.replace(found, record=record)


def trainings(seeds: int) -> list:
    accuracy = {"noise": 0.9, "learned": 0.95}
    return [
        trained_client(defense, accuracy[defense] + 0.001 * seed, seed=seed, block=block, method=method)
        for defense in accuracy
        for method in ("dlg", "idlg")
        for seed in range(seeds)
        for block in range(6)
    ]


def test_a_training_that_many_cells_report_counts_once():
    high = claim(threshold={"value": "utility", "where": {"defense": "learned"}, "op": ">=", "number": 0.9})
    once = judge_claim(high, trainings(1))
    assert (once.status, once.n, once.unit, once.estimate) == ("inconclusive", 1, "trainings", 0.95)
    thrice = judge_claim(high, trainings(3))
    assert (thrice.status, thrice.n) == ("holds", 3)


def test_trainings_are_compared_in_pairs_of_trainings():
    gain = {"value": "utility", "left": {"defense": "learned"}, "right": {"defense": "noise"}}
    found = judge_claim(claim(compare=gain), trainings(4))
    assert (found.status, found.n) == ("holds", 4)
    assert found.estimate == pytest.approx(0.05)


def test_a_correlation_with_utility_has_one_point_for_each_training():
    found = judge_claim(claim(correlation={"x": "utility", "y": "psnr.mean", "at_most": 0.5}), trainings(3))
    assert (found.n, found.unit) == (0, "trainings")  # each training's examples have the same mean
    assert "does not vary" in found.reason
