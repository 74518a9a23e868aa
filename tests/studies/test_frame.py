from __future__ import annotations

import csv
import io
import random

import pytest
from handmade import attack, cell, grid

from invertigo.studies.frame import attack_frame, example_frame, frame_files, timing_frame
from invertigo.types import ConfigurationError

CELLS = [
    *grid({"model": ["vgg", "lenet"], "count": [8, 16, 1]}, [0, 1], lambda seed, count, **_: [10.0 + seed, 30.0]),
    cell({"model": "lenet", "count": 32}, 0, failure="Traceback\nRuntimeError: no memory"),
    cell({"model": "lenet", "count": 64}, 0),
    cell({"model": "lenet", "count": 2}, 0, [attack(psnr=[19.0, 5.0]), attack("x", status="refused", reason="a, b")]),
]


def read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_a_row_for_every_attack_and_for_every_cell_without_one():
    rows = attack_frame(CELLS).records()
    assert len(rows) == 16
    assert [r["count"] for r in rows if r["model"] == "lenet" and r["seed"] == 0] == [1, 2, 2, 8, 16, 32, 64]
    by_status = {r["status"]: r for r in rows}
    assert set(by_status) == {"done", "failed", "missing"}
    assert by_status["failed"]["psnr_mean"] is None
    refused = next(r for r in rows if r["attack_status"] == "refused")
    assert (refused["attack_reason"], refused["psnr_mean"], refused["strongest"]) == ("a, b", None, False)


def test_values_are_those_that_a_claim_reads():
    row = next(r for r in attack_frame(CELLS).records() if r["count"] == 2 and r["attack_status"] == "ran")
    expected = {
        "psnr_mean": 12.0, "psnr_worst": 19.0, "psnr_best": 5.0, "recovered": 1, "recovered_share": 0.5,
        "over_guess": 3.0, "guess_name": "mean_image", "guess_psnr_mean": 9.0, "strongest": True, "cell": CELLS[-1].key,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


def test_examples_are_in_the_order_of_the_truth():
    rows = [r for r in example_frame(CELLS).records() if r["count"] == 2]
    assert [(r["example"], r["psnr"], r["outcome"], r["rank"]) for r in rows] == [
        (1, 19.0, "recognisable", 1),
        (2, 5.0, "nothing", 7),
    ]


def test_bytes_depend_on_the_results_alone():
    shuffled = list(CELLS)
    random.Random(3).shuffle(shuffled)
    slower = [
        c
        if c.record is None
        else cell(c.coordinates, c.seed, [a.model_copy(update={"seconds": 99.0}) for a in c.record.attacks])
        for c in shuffled
    ]
    one, other = frame_files(CELLS), frame_files(slower)
    assert one["timings.csv"] != other["timings.csv"]
    for name in one.keys() - {"timings.csv", "timings.parquet", "results.parquet"}:
        assert one[name] == other[name], name
    assert frame_files(list(CELLS))["results.parquet"] == one["results.parquet"]  # which lists axes as they come


def test_times_stay_in_their_own_file():
    assert not [c for c in (*attack_frame(CELLS).columns, *example_frame(CELLS).columns) if "second" in c]
    assert {"cell_seconds", "attack_seconds", "created"} <= set(timing_frame(CELLS).columns)


def test_csv_keeps_full_precision_and_awkward_text():
    cells = [cell({"note": 'a, "b"\nc'}, 0, [attack(psnr=[1 / 3])])]
    (row,) = read(attack_frame(cells).csv())
    assert row["note"] == 'a, "b"\nc'
    assert float(row["psnr_mean"]) == 1 / 3
    assert row["attack_exact"] == "false"


def test_parquet_holds_the_same_rows():
    parquet = pytest.importorskip("pyarrow.parquet")
    frame = attack_frame(CELLS)
    table = parquet.read_table(io.BytesIO(frame.parquet()))
    assert table.column_names == list(frame.columns)
    assert table.to_pylist() == frame.records()
    assert str(table.schema.field("count").type) == "int64"
    assert str(table.schema.field("psnr_mean").type) == "double"


def test_an_axis_of_mixed_types_is_a_text_in_parquet():
    parquet = pytest.importorskip("pyarrow.parquet")
    cells = grid({"limit": [1, "all", True], "rate": [1, 0.5, 2]}, [0], lambda **_: [5.0])
    table = parquet.read_table(io.BytesIO(attack_frame(cells).parquet()))
    assert set(table["limit_"].to_pylist()) == {"1", "all", "true"}
    assert set(table["rate"].to_pylist()) == {0.5, 1.0, 2.0}


def test_an_axis_with_the_name_of_a_column_is_refused():
    with pytest.raises(ConfigurationError, match="verdict"):
        attack_frame([cell({"verdict": 1}, 0)])
    assert attack_frame([]).rows == ()


def test_without_parquet_there_is_csv():
    assert set(frame_files(CELLS, parquet=False)) == {"results.csv", "examples.csv", "timings.csv"}


def test_columns_need_no_quotes_in_sql():
    """SQLite reads every column by its bare name, whatever the axes are called, and the documented join is complete."""
    import sqlite3

    axes = {"data.count": 4, "Order": 1, "2nd try": 3, "group": 2, "größe": 5}
    cells = [cell(axes, seed, [attack(psnr=[10.0 + seed, 20.0]), attack("x", psnr=[1.0, 2.0])]) for seed in (0, 1)]
    database = sqlite3.connect(":memory:")
    for name, frame in {
        "results": attack_frame(cells),
        "examples": example_frame(cells),
        "timings": timing_frame(cells),
    }.items():
        database.execute(f"create table {name} ({', '.join(frame.columns)})")
        database.executemany(f"insert into {name} values ({', '.join('?' * len(frame.columns))})", frame.rows)
        for column in frame.columns:
            database.execute(f"select {column} from {name} where {column} is not null")
    joined = database.execute(
        "select r.data_count, r.psnr_mean, avg(e.psnr), t.attack_seconds from results r "
        "join examples e using (cell, attack_name, attack_level, attack_informed) "
        "join timings t using (cell, attack_name, attack_level, attack_informed) group by r.cell, r.attack_name"
    ).fetchall()
    assert len(joined) == 4
    assert all(
        count == 4 and mean == pytest.approx(average) and seconds == 1.5 for count, mean, average, seconds in joined
    )


def test_axes_that_would_share_a_column_are_refused_before_anything_runs():
    from grids import study

    from invertigo.studies.expansion import expand

    two = {"data.count": [1], "data_count": [{"label": "a", "set": {"decoys": 3}}]}
    with pytest.raises(ConfigurationError, match="both be the column 'data_count'"):
        expand(study(axes=two))
