"""Guarded federations in studies: keys of other cells stay, records hold every inspection, values read them."""

from __future__ import annotations

import csv
import io

import pytest
from grids import study
from handmade import attack, cell

from invertigo.auditing import audit
from invertigo.auditing.guard_record import AdversaryRecord, AttackedRecord, GuardRecord, InspectionRecord
from invertigo.auditing.guarded import moments
from invertigo.auditing.scenario import Scenario, load_scenario
from invertigo.report.charts import HEIGHT, WIDTH
from invertigo.report.guarded import guard_view
from invertigo.report.study import render_study
from invertigo.studies.claims import Threshold
from invertigo.studies.conclusion import Conclusion
from invertigo.studies.expansion import expand
from invertigo.studies.frame import frame_files
from invertigo.studies.identity import key_of
from invertigo.studies.judgement import threshold
from invertigo.studies.spec import load_study
from invertigo.studies.store import Store
from invertigo.studies.table import build_table
from invertigo.studies.values import parse_value, read
from invertigo.types import ConfigurationError

FEDERATION = {"clients": 4, "rounds": 3, "examples": 500, "at": ["first", "last"]}
SCENARIO = {
    "data": {"name": "digits", "count": 1, "public_count": 50},
    "model": {"name": "mlp", "options": {"hidden": [128, 64]}},
    "local": {"sends": "difference", "learning_rate": 0.2, "batch_size": 32},
    "adversary": {"levels": [1]},
    "attacks": ["linear_layer"],
    "decoys": 5,
}


def look(round: int = 0, decision: str = "pass", score: float = 1.0) -> InspectionRecord:
    return InspectionRecord(round=round, client=0, decision=decision, score=score)


def crafted(round: int, decision: str = "pass", *, started: int = 0, **more) -> AttackedRecord:
    facts = {"score": 9.0 if decision != "pass" else 1.0, "harmful": False, "rebuilt": 0.0}
    return AttackedRecord(round=round, client=0, decision=decision, started=started, **(facts | more))


def guard() -> GuardRecord:
    drift = [crafted(2, started=2, rebuilt=0.1, harmful=True), crafted(5, "warn", started=2, rebuilt=0.4, harmful=True)]
    fishing = [crafted(0, "block", rebuilt=None, harmful=True), crafted(4, started=4, rebuilt=None)]
    return GuardRecord(
        clients=4, rounds=6, participation=1.0, dirichlet=None, examples=100,
        honest=[look(score=s) for s in (0.5, 1.0, 2.0)] + [look(3, "warn", 4.0)],
        adversaries=[
            AdversaryRecord(name="drift", attack="imprint", tuned=True, drift=0.1, inspections=drift),
            AdversaryRecord(name="fishing", attack="class_fishing", tuned=False, inspections=fishing),
            AdversaryRecord(name="LOKI", attack="loki", tuned=False, skipped="no convolution to tell clients apart by"),
        ],
    )  # fmt: skip


def guarded_cell(**coordinates):
    found = cell(coordinates, attacks=[attack(psnr=[9.0])])
    return type(found)(**{**vars(found), "record": found.record.model_copy(update={"guard": guard()})})


def test_a_section_that_nobody_uses_changes_no_key():
    config = Scenario().resolved() | {"attacks": [{"name": "linear_layer"}], "compare": []}
    assert key_of(config, {"invertigo": "0.1.0"}) == "948a7c55f5def069b6796830"
    assert key_of(config | {"guarded": FEDERATION}, {"invertigo": "0.1.0"}) != key_of(config, {"invertigo": "0.1.0"})


@pytest.mark.parametrize(
    ("value", "attack", "number"),
    [
        ("guard.inspections", None, 4),
        ("guard.alarms", None, 1),
        ("guard.attacked", None, 4),
        ("guard.flagged", "drift", 0.5),
        ("guard.flagged", ["drift", "class_fishing"], 0.5),
        ("guard.blocked", None, 0.25),
        ("guard.harmful", None, 0.75),
        ("guard.missed", None, 1 / 3),
        ("guard.missed", "imprint", 0.5),
        ("guard.caught", None, 2 / 3),
        ("guard.delay", "drift", 3.0),
        ("guard.delay", None, 1.5),
        ("guard.rebuilt", None, 0.25),
        ("guard.escaped", None, 0.1),
        ("guard.area", "drift", (1.5 + 4) / 8),
    ],
)
def test_values_of_a_guard(value, attack, number):
    assert read(guarded_cell().record, parse_value(value), attack=attack).number == pytest.approx(number)


@pytest.mark.parametrize(
    ("value", "attack", "reason"),
    [
        ("guard.flagged", "LOKI", "no convolution"),
        ("guard.flagged", "seer", "no adversary called seer"),
        ("guard.rebuilt", "fishing", "optimiser"),
    ],
)
def test_what_was_not_measured_has_a_reason(value, attack, reason):
    assert reason in read(guarded_cell().record, parse_value(value), attack=attack).reason


def test_a_cell_without_a_guard_says_so():
    record = cell({}, attacks=[attack(psnr=[9.0])]).record
    assert "no guarded federation" in read(record, parse_value("guard.alarms")).reason


def test_tables_and_files_have_a_row_for_every_adversary():
    results = [guarded_cell(model="MLP"), guarded_cell(model="CNN")]
    table = build_table(results, rows=["attack"], columns=["model"], value="guard.flagged")
    assert [row[0] for row in table.rows] == ["drift", "fishing"]
    assert table.entry(0, 0).mean == 0.5
    rows = list(csv.DictReader(io.StringIO(frame_files(results, parquet=False)["guard.csv"].decode())))
    assert [row["adversary"] for row in rows[:3]] == ["fishing", "drift", "LOKI"]
    assert rows[1]["guard_delay"] == "3.0"
    assert "guard.csv" not in frame_files([cell({}, attacks=[attack(psnr=[9.0])])], parquet=False)


def test_a_claim_speaks_of_adversaries_by_name():
    test = Threshold(value="guard.missed", where={"attack": ["drift", "class_fishing"]}, op="<=", number=0.4)
    found = threshold(test, [guarded_cell(seed=0), guarded_cell(seed=1)])
    assert found.interval.estimate == pytest.approx(1 / 3)


def test_an_audit_of_a_guarded_scenario_notices_an_imprint_and_waits_for_a_drift():
    attacks = [
        {"name": "imprint", "label": "published"},
        {"name": "imprint", "label": "drift", "drift": 0.1, "visits": 3},
        {"name": "loki", "label": "misfit"},
    ]
    guarded = FEDERATION | {"attacks": attacks}
    record = audit(Scenario.model_validate(SCENARIO | {"guarded": guarded})).record.guard
    assert len(record.honest) == 12
    assert not [one for one in record.honest if one.flagged]
    published, drift, misfit = record.adversaries
    assert [one.round for one in published.inspections] == [0, 2]
    assert all(one.decision == "block" and one.rebuilt > one.honest and one.harmful for one in published.inspections)
    assert [one.round for one in drift.inspections[:2]] == [0, 1]
    assert not drift.inspections[0].flagged
    assert "convolution" in misfit.skipped
    assert record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        ([{"name": "imprnt"}], "imprint"),
        ([{"name": "dlg"}], "honest server"),
        ([{"name": "imprint", "gian": 1}], "gain"),
        (["imprint", "imprint"], "label"),
    ],
)
def test_wrong_campaigns_are_named_before_anything_runs(attacks, said):
    with pytest.raises(Exception, match=said) as raised:
        expand(study(base=SCENARIO | {"guarded": FEDERATION | {"attacks": attacks}}, axes={}))
    assert isinstance(raised.value, ConfigurationError) or raised.type.__name__ == "UnknownNameError"


def test_a_section_can_be_given_by_dotted_keys(tmp_path):
    path = tmp_path / "guarded.yaml"
    path.write_text("guarded: {rounds: 2}\n", encoding="utf-8")
    assert load_scenario(path, ["guarded.participation=0.5"]).guarded.participation == 0.5


def test_moments_of_a_federation():
    assert moments(["first", "early", "middle", "last"], 12) == (0, 2, 6, 11)
    assert moments(["last", "first", "early"], 2) == (0, 1)


def test_the_packaged_study_covers_what_it_says():
    cells = expand(load_study("detectability"), "cpu")
    assert len(cells) == 12
    assert {c.coordinates["labels"] for c in cells} == {"even", "Dirichlet 0.3"}
    names = {one["name"] for one in cells[0].config["guarded"]["attacks"]}
    assert {"imprint", "quantile_bias", "geminio", "loki", "scale_mia", "class_fishing"} <= names


def test_the_page_draws_what_guards_noticed(tmp_path):
    results = [guarded_cell(model="MLP"), guarded_cell(model="CNN")]
    view = guard_view(results)
    assert (view.federations, view.inspections, view.alarms, view.bound) == (2, 8, 2, "")
    drift, fishing = view.lines
    assert (drift.attacked, drift.flagged, drift.delay, drift.harmful, drift.missed) == ("4", "50", "3.0", "4", "2")
    assert (fishing.rebuilt, fishing.blocked) == ("", "50")
    assert view.misfits == (("LOKI", "no convolution to tell clients apart by"),)
    curve = {one.name: one for one in view.noticed.series}["slow drift"]
    assert [1 - mark.y / HEIGHT for mark in curve.marks] == [0, 0, 0, 1, 1, 1]
    roc = {one.name: one for one in view.roc.series}["held out"]
    assert (roc.marks[-1].x / WIDTH, 1 - roc.marks[-1].y / HEIGHT) == (0.25, 0.5)
    # Of the thresholds, 4.0 has one honest model in four at or above it, and one crafted model in two.
    assert (0.25, 0.5) in [(mark.x / WIDTH, 1 - mark.y / HEIGHT) for mark in roc.marks[:-1]]
    page = render_study(Conclusion(study(axes={}), None, results, [], Store(tmp_path)), tmp_path / "page.html")
    assert "What the guards noticed" in page
    assert "8 inspections of honest models in 2 federations" in page
    assert page.count("<figcaption>") == 2
    assert guard_view([cell({}, attacks=[attack(psnr=[9.0])])]) is None
