"""What each defense costs and hides, told from results made by hand, and the study that measures it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from handmade import attack, cell

from invertigo.auditing.record import DefenseRecord, LevelRecord, UtilityRecord
from invertigo.auditing.scenario import Scenario, load_scenario
from invertigo.report.frontier import frontier_view
from invertigo.studies.expansion import expand
from invertigo.studies.frontier import frontier_of, with_cheapest
from invertigo.studies.frontier_study import CHANGES, frontier_study
from invertigo.studies.store import CellResult
from invertigo.types import ConfigurationError, UnknownNameError


def point(
    label: str, naive: float, informed: float, accuracy: float | None, seed: int = 0, level: int = 1, **facts: Any
) -> CellResult:
    attacks = [attack(psnr=[naive, naive], level=level)]
    attacks += [] if label == "none" else [attack(psnr=[informed, informed], level=level, informed=True)]
    made = cell({"defense": label}, seed, attacks)
    most = max(one.recovered for one in attacks)
    changes: dict[str, Any] = {
        "levels": [LevelRecord(level=n, summary="", examined=n == level, recovered=most) for n in range(6)],
        "utility": None if accuracy is None else utility(accuracy, **facts),
    }
    if label != "none":
        name = label.partition(" ")[0]
        changes["defense"] = DefenseRecord(name=name, paper="p", settings={}, releases=1, undefended=0)
    record = made.record.model_copy(update=changes) if made.record else None
    return CellResult(coordinates=made.coordinates, seed=seed, key=made.key, record=record, failure=None, block=0)


def utility(accuracy: float, **facts: Any) -> UtilityRecord:
    given = {
        "rounds": 1, "clients": 1, "dirichlet": None, "batch_size": 1, "learning_rate": 0.1, "examples": 1, "test": 1,
        "curve": [(1, accuracy)], "seconds": 1.0, "bytes": 100.0, "raw_bytes": 100.0, "accuracy": accuracy,
    }  # fmt: skip
    return UtilityRecord(**(given | facts))


GRID = [
    point("none", 30.0, 30.0, 0.9),
    point("top_k · k=0.5", 20.0, 29.0, 0.89, bytes=60.0),
    point("top_k · k=0.1", 12.0, 17.0, 0.8, bytes=20.0),
    point("noise · std=0.1", 13.0, 16.0, 0.7),
    point("noise · std=0.2", 12.0, 14.0, 0.8),
    point("bad · x=1", 20.0, 29.0, 0.5),
]


def test_a_curve_holds_both_adversaries_in_the_order_of_strength():
    found = frontier_of(GRID)
    assert found is not None
    assert list(found.curves) == ["none", "top_k", "noise", "bad"]
    assert [(p.setting, p.naive, p.informed) for p in found.curves["top_k"]] == [
        ("k=0.5", 20.0, 29.0),
        ("k=0.1", 12.0, 17.0),
    ]
    assert {p.guess for p in found.points} == {9.0}


def test_the_informed_score_is_the_stronger_of_both():
    found = frontier_of([GRID[0], point("sign · scaled=true", 15.0, 11.0, 0.8)])
    assert found is not None
    assert (found.points[1].naive, found.points[1].informed) == (15.0, 15.0)


def test_cells_of_one_point_are_averaged():
    found = frontier_of([point("noise · std=1", 10.0, 12.0, 0.6, 0), point("noise · std=1", 14.0, 20.0, 0.8, 1)])
    assert found is not None
    (one,) = found.points
    assert (one.naive, one.informed, one.accuracy, one.cells) == (12.0, 16.0, pytest.approx(0.7), 2)
    assert one.recovered == 0.5


def test_dominated_points_and_defenses_are_named():
    found = frontier_of(GRID)
    assert found is not None
    by = {p.name: p.dominated_by for p in found.points}
    assert by["top_k · k=0.1"] == "noise · std=0.2"
    assert by["noise · std=0.1"] == "", "its own stronger setting is no other defense, and top_k leaks more"
    assert by["bad · x=1"] == "top_k · k=0.5"
    assert found.dominated == ["bad"]


def test_scores_under_the_guess_do_not_rank_defenses():
    found = frontier_of([GRID[0], point("one · a=1", 3.0, 5.0, 0.6), point("two · a=1", 3.0, 7.0, 0.8)])
    assert found is not None
    assert {p.defense: p.dominated_by for p in found.points}["one"] == "two · a=1", "5 and 7 dB are both under 9 dB"


def test_the_cheapest_that_holds_is_the_most_accurate_then_the_smallest():
    found = frontier_of([*GRID, point("wide · a=1", 12.0, 14.0, 0.8, bytes=500.0)])
    assert found is not None
    assert found.cheapest(1) is not None
    assert found.sentence(1) == "top_k · k=0.1 (accuracy 80.0% instead of 90.0%, 0.2 times the bytes)"
    assert found.cheapest(2) is None
    assert found.sentence(2) == ""
    bare = with_cheapest(GRID[0].record, found)  # type: ignore[arg-type]
    assert [level.defense for level in bare.levels if level.defense] == [found.sentence(1)]


def test_as_many_bytes_are_the_same_bytes():
    found = frontier_of([GRID[0], GRID[4]])
    assert found is not None
    assert found.sentence(1).endswith("instead of 90.0%, the same bytes)")


def test_a_perfect_reconstruction_does_not_flatten_the_others():
    found = frontier_view(frontier_of([point("none", 150.0, 150.0, 0.9), *GRID[1:]]))
    assert found is not None
    assert found.capped == "Scores above 40 dB are drawn there."
    assert found.y_ticks[-1][1] == "40"
    assert found.bare is not None
    assert min(spot.y for trade in found.trades for spot in trade.informed) > found.bare.y + 20
    assert "150" in found.bare.text
    usual = frontier_view(frontier_of(GRID))
    assert usual is not None
    assert usual.capped == ""


@pytest.mark.parametrize("changes", [{"controls": []}, {"portfolio": "chosen"}])
def test_a_defense_that_was_not_shown_to_hold_is_not_recommended(changes):
    shown = point("noise · std=1", 9.0, 10.0, 0.8)
    assert shown.record is not None
    doubtful = dataclasses.replace(shown, record=shown.record.model_copy(update=changes))
    assert frontier_of([GRID[0], shown]).cheapest(1) is not None  # type: ignore[union-attr]
    assert frontier_of([GRID[0], doubtful]).cheapest(1) is None  # type: ignore[union-attr]


def test_a_seed_that_cannot_tell_keeps_a_defense_from_holding():
    shown, other = point("noise · std=1", 9.0, 10.0, 0.8), point("noise · std=1", 9.0, 10.0, 0.8, 1)
    assert other.record is not None
    unknown = other.record.verdict.model_copy(update={"status": "inconclusive"})
    other = dataclasses.replace(other, record=other.record.model_copy(update={"verdict": unknown}))
    found = frontier_of([GRID[0], shown, other])
    assert found is not None
    assert found.cheapest(1) is None


def test_what_holds_for_one_seed_only_does_not_hold():
    found = frontier_of([GRID[0], point("noise · std=1", 9.0, 10.0, 0.8, 0), point("noise · std=1", 9.0, 25.0, 0.8, 1)])
    assert found is not None
    assert found.cheapest(1) is None


def test_a_sum_of_clients_is_all_that_rung_1_sees():
    found = frontier_of([GRID[0], point("secure_aggregation · 8", 9.0, 9.0, 0.9, level=0)])
    assert found is not None
    assert found.sentence(1).startswith("secure_aggregation · 8")


def test_a_study_without_defenses_has_no_frontier():
    assert frontier_of([GRID[0]]) is None
    assert frontier_of([]) is None
    assert frontier_view(None) is None


def test_the_view_draws_every_defense_on_one_scale():
    view = frontier_view(frontier_of(GRID))
    assert view is not None
    assert [trade.name for trade in view.trades] == ["top_k", "noise", "bad"]
    assert [trade.dominated for trade in view.trades] == [False, False, True]
    top = view.trades[0]
    assert top.apart
    assert top.informed[0].y < top.informed[1].y, "more leaks further up"
    assert top.informed[0].x > top.informed[1].x
    assert top.informed[0].y < top.naive[0].y
    assert view.bare is not None
    assert view.bare.x > top.informed[0].x
    assert view.guess is not None
    assert [spot.label for spot in view.best] == ["noise", "top_k", ""], "the diamond says no defense"
    assert [row.name for row in view.rows][:2] == ["no defense", "top_k"]
    assert dict(view.rows[2].cells)["bytes"] == "× 0.2"


def test_without_utility_there_is_a_table_and_no_chart():
    view = frontier_view(frontier_of([point("none", 30.0, 30.0, None), point("noise · std=1", 9.0, 10.0, None)]))
    assert view is not None
    assert view.trades == ()
    assert "accuracy" not in view.columns
    assert len(view.rows) == 2


SCENARIO = Scenario.model_validate({"data": {"name": "digits", "count": 2}, "model": {"name": "mlp"}})


def test_the_study_spans_each_defense_from_weak_to_strong():
    study = frontier_study(SCENARIO, ["top_k", "secure_aggregation", "local_steps", "batch_size"], points=2)
    labels = [item["label"] for item in study.axes["defense"]]
    assert labels == [
        "none", "top_k · k=0.5", "top_k · k=0.01", "secure_aggregation · 2", "secure_aggregation · 8",
        "local_steps · 2", "local_steps · 8", "batch_size · 2", "batch_size · 8",
    ]  # fmt: skip
    cells = {c.coordinates["defense"]: c.config for c in expand(study)}
    assert cells["top_k · k=0.01"]["defense"] == {"name": "top_k", "k": 0.01}
    assert cells["secure_aggregation · 8"]["adversary"]["clients"] == 8
    assert cells["secure_aggregation · 8"]["adversary"]["levels"] == [0]
    assert cells["local_steps · 8"]["local"]["epochs"] == 8
    assert cells["batch_size · 8"]["data"]["count"] == 16
    assert {c["data"]["pool"] for c in cells.values()} == {16}, "all points share their public examples"
    assert {c["utility"]["undefended"] for c in cells.values()} == {False}
    assert len({c.key for c in expand(study)}) == len(labels)


def test_all_defenses_and_ways_of_training_are_tried_by_default():
    study = frontier_study(SCENARIO, points=1)
    named = {re.split(" · ", item["label"])[0] for item in study.axes["defense"]}
    from invertigo import defenses

    assert named == {"none", *defenses.registry, *CHANGES}


def test_settings_of_the_scenario_stay_beside_the_strength():
    scenario = load_scenario("digits-mlp", ["defense=censor", "defense.fallback=skip"])
    (_, item) = frontier_study(scenario, ["censor"], points=1).axes["defense"]
    assert item["set"]["defense"]["fallback"] == "skip"
    assert "trials" in item["set"]["defense"]


def test_the_drawn_front_stops_where_scores_mean_nothing():
    low = [point("one · a=1", 3.0, 5.0, 0.6), point("two · a=1", 3.0, 7.0, 0.8)]
    view = frontier_view(frontier_of([GRID[0], *low]))
    assert view is not None
    assert [spot.text.partition(",")[0] for spot in view.best] == ["two · a=1", "none"]


@pytest.mark.parametrize(
    ("wanted", "points", "error", "words"),
    [(["topk"], 2, UnknownNameError, "Did you mean 'top_k'"), (["top_k"], 0, ConfigurationError, "at least 1")],
)
def test_a_frontier_that_makes_no_sense_is_refused(wanted, points, error, words):
    with pytest.raises(error, match=words):
        frontier_study(SCENARIO, wanted, points=points)
