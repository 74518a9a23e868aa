from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from handmade import attack, cell, grid
from hypothesis import given
from hypothesis import strategies as st

from invertigo.studies.table import build_table
from invertigo.types import ConfigurationError


def scores(seed: int, defense: str, count: int) -> list[float]:
    return [{"none": 30.0, "noise & 5%": 12.0}[defense] - count + seed]


CELLS = grid({"defense": ["none", "noise & 5%"], "count": [16, 1, 8]}, range(5), scores)


def test_markdown_has_the_mean_and_half_the_interval_in_each_place():
    table = build_table(CELLS, rows=["defense"], columns=["count"])
    lines = table.format().splitlines()
    assert [part.strip() for part in lines[0].strip("|").split("|")] == ["defense", "1", "8", "16"]  # by size
    assert lines[1].startswith("| ---")
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["none", "noise & 5%"]  # as the study lists them
    entry = table.entry(0, 0)
    assert entry is not None
    assert (entry.mean, entry.n) == (pytest.approx(31.0), 5)
    assert entry.half is not None
    assert 1.4 < entry.half < 2.1  # Student's t for five seeds, 1.96
    assert "31.0 ± 2.0" in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_missing_cells_are_dashes_and_incomplete_means_are_marked():
    cells = [c for c in CELLS if (c.coordinates["defense"], c.coordinates["count"]) != ("none", 8)]
    first = next(c for c in cells if c.coordinates == {"defense": "none", "count": 1})
    cells = [cell(c.coordinates, c.seed, failure="RuntimeError: x") if c is first else c for c in cells]
    table = build_table(cells, rows=["defense"], columns=["count"])
    none = table.format().splitlines()[2].split("|")
    assert none[3].strip() == "–"
    assert none[2].strip().endswith("*")
    entry = table.entry(0, 0)
    assert entry is not None
    assert (entry.n, entry.lacking, entry.mean) == (4, 1, pytest.approx(31.5))
    assert any("have no value" in note for note in table.notes())


def test_one_seed_has_no_interval():
    table = build_table(CELLS[::5], rows=["count"], columns=["defense"])
    assert "±" not in table.format()
    assert "29.0" in table.format()


def test_several_axes_and_none():
    table = build_table(CELLS, rows=["defense", "count"], columns=[])
    assert len(table.rows) == 6
    assert table.format().splitlines()[0].split("|")[-2].strip() == "psnr.mean"
    wide = build_table(CELLS, rows=["seed"], columns=["defense", "count"])
    assert len(wide.columns) == 6
    assert "none, 16" in wide.format()
    whole = build_table(CELLS, rows=[], columns=["defense"])
    assert len(whole.rows) == 1
    assert whole.averaged == ("count",)
    assert "Averaged over count." in whole.notes()


def test_csv_is_read_back_in_full_precision():
    rows = list(csv.DictReader(io.StringIO(build_table(CELLS, rows=["defense"], columns=["count"]).format("csv"))))
    assert len(rows) == 6
    assert rows[-1]["defense"] == "noise & 5%"
    assert float(rows[0]["psnr.mean"]) == 31.0
    assert (rows[0]["cells"], rows[0]["lacking"]) == ("5", "0")


def test_latex_escapes_what_tex_would_read():
    cells = grid({"defense": ["a_b & 5% $x$ #1 {y} ~^\\"]}, [0], lambda **_: [5.0, -7.0])
    text = build_table(cells, rows=["defense"], columns=[]).format("latex")
    body = text.splitlines()[4]
    assert body.startswith(
        r"a\_b \& 5\% \$x\$ \#1 \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{} & $-$1.00 \\"
    )
    assert text.startswith("\\begin{tabular}{lr}")
    assert text.endswith("\\end{tabular}")


def test_a_bar_in_a_label_does_not_split_a_markdown_cell():
    cells = grid({"defense": ["a|b"]}, [0], lambda **_: [5.0])
    assert "a\\|b" in build_table(cells, rows=["defense"], columns=[]).format()


def test_attack_and_level_come_from_the_audits_when_the_study_has_no_such_axis():
    def attacks(seed: int) -> list[Any]:
        refused = attack("linear_layer", status="refused", reason="convolution")
        return [attack("dlg", 1, [10.0 + seed]), attack("dlg", 2, [20.0 + seed]), refused]

    cells = [cell({"model": "a"}, seed, attacks(seed)) for seed in range(3)]
    table = build_table(cells, rows=["attack"], columns=["level"])
    assert (table.rows, table.columns) == ((("dlg",), ("linear_layer",)), (("1",), ("2",)))
    assert [table.entry(0, j).mean for j in (0, 1)] == [11.0, 21.0]
    assert table.entry(1, 0) is None
    assert not table.incomplete
    assert build_table(cells, rows=["model"], columns=[]).strongest
    assert build_table(cells, rows=["model"], columns=[], where={"level": 1}).entry(0, 0).mean == 11.0


def test_a_wrong_axis_names_the_nearest_and_a_wrong_value_too():
    with pytest.raises(ConfigurationError, match="Did you mean 'defense'"):
        build_table(CELLS, rows=["defence"], columns=[])
    with pytest.raises(ConfigurationError, match=r"psnr\.mean"):
        build_table(CELLS, rows=["defense"], columns=[], value="psnr.maen")
    with pytest.raises(ConfigurationError, match="reports 'ssim'"):
        build_table(CELLS, rows=["defense"], columns=[], value="ssim")
    with pytest.raises(ConfigurationError, match="twice"):
        build_table(CELLS, rows=["defense"], columns=["defense"])


@given(st.text(min_size=1, max_size=12), st.floats(-100, 300))
def test_any_label_and_number_survive_every_format(label, number):
    cells = grid({"d": [label]}, [0], lambda **_: [number])
    table = build_table(cells, rows=["d"], columns=[])
    (row,) = csv.DictReader(io.StringIO(table.format("csv")))
    assert float(row["psnr.mean"]) == number
    assert table.format("latex").count("&") - table.format("latex").count(r"\&") == 2
    assert "psnr.mean" in table.format()


def test_naive_and_informed_adversaries_are_told_apart():
    def defended(naive, informed):
        return [attack(psnr=[naive]), attack(psnr=[informed], informed=True)]

    cells = [
        cell({"defense": "none"}, 0, [attack(psnr=[20.0])]),
        cell({"defense": "top_k"}, 0, defended(14.0, 19.0)),
        cell({"defense": "sign"}, 0, defended(15.0, 11.0)),
    ]
    table = build_table(cells, rows=["defense"], columns=["informed"], value="psnr.mean")
    means = {(row, column): table.entries[i, j].mean for i, (row,) in enumerate(table.rows)
             for j, (column,) in enumerate(table.columns) if (i, j) in table.entries}  # fmt: skip
    assert means == {
        ("none", "no"): 20.0,
        ("top_k", "no"): 14.0,
        ("top_k", "yes"): 19.0,
        ("sign", "no"): 15.0,
        ("sign", "yes"): 11.0,
    }
    strongest = build_table(cells, rows=["defense"], columns=[], value="psnr.mean")
    assert [strongest.entries[i, 0].mean for i in range(3)] == [20.0, 19.0, 15.0]


def kept(tmp_path, cells):
    """A study's folder with these results in flat files, and a folder for each cell that was run."""
    from invertigo.studies.frame import frame_files
    from invertigo.studies.store import Store

    for one in cells:
        if one.record or one.failure:
            (tmp_path / "cells" / one.key).mkdir(parents=True)
    for name, content in frame_files(cells).items():
        (tmp_path / name).write_bytes(content)
    return Store(tmp_path)


def tried(seed, model, limit):
    """Three attacks, one of them informed and one refused, with scores that depend on all."""
    base = 10.0 + 3 * seed + (5 if model == "vgg" else 0) + (limit or 0)
    return [
        attack("zeta", psnr=[base, base + 2]),
        attack("alpha", psnr=[base + 1, base - 3]),
        attack("alpha", psnr=[base + 4, base - 9], informed=True),
        attack("alpha", level=2, psnr=[base + 30, 90.0], outcomes=["exact", "exact"]),
        attack("beta", level=2, status="refused", reason="no"),
    ]


@pytest.mark.parametrize(
    ("rows", "columns", "value", "where"),
    [
        (["model"], ["limit"], "psnr.mean", {}),
        (["model", "attack"], ["level"], "psnr.worst", {}),
        (["attack", "informed"], [], "recovered", {"model": "vgg"}),
        (["limit"], ["seed"], "over_guess", {"attack": "alpha", "informed": False}),
        (["limit"], [], "mse.median", {"limit": [8, None]}),
        ([], ["model"], "identified.share", {"level": 1}),
    ],
)
def test_a_table_from_parquet_is_the_one_that_reading_every_cell_gives(tmp_path, rows, columns, value, where):
    pytest.importorskip("pyarrow")
    from invertigo.studies.row_table import quick_table

    axes = [("lenet", 8), ("lenet", None), ("vgg", 8), ("vgg", None), ("vgg", True)]
    cells = [
        cell({"model": model, "limit": limit}, seed, tried(seed, model, limit))
        for model, limit in axes
        for seed in (0, 1, 2)
    ]
    cells += [cell({"model": "vgg", "limit": 64}, 0, failure="boom"), cell({"model": "vgg", "limit": 64}, 1)]
    found = quick_table(kept(tmp_path, cells), rows=rows, columns=columns, value=value, where=where)
    assert found is not None
    assert found[0] == build_table(cells, rows=rows, columns=columns, value=value, where=where)


def test_parquet_that_is_older_than_a_cell_is_not_believed(tmp_path):
    pytest.importorskip("pyarrow")
    from invertigo.studies.row_table import quick_table

    cells = [cell({"model": "vgg"}, seed, [attack(psnr=[10.0])]) for seed in (0, 1)]
    store = kept(tmp_path, cells)
    asked = {"rows": ["model"], "columns": [], "value": "psnr.mean", "where": {}}
    assert quick_table(store, **asked) is not None
    assert quick_table(store, **{**asked, "value": "guard.alarms"}) is None
    (tmp_path / "cells" / "new").mkdir()
    assert quick_table(store, **asked) is None
    (tmp_path / "cells" / "new").rmdir()
    assert quick_table(store, **asked) is not None
    aside = tmp_path / "cells" / cells[0].key
    aside.rename(tmp_path / "aside")
    (tmp_path / "aside").rename(aside)  # as a cell that was computed anew takes its place
    assert quick_table(store, **asked) is None


def test_a_table_of_parquet_needs_neither_torch_nor_the_cells(tmp_path):
    pytest.importorskip("pyarrow")
    import subprocess
    import sys

    kept(tmp_path, [cell({"model": "vgg"}, seed, [attack(psnr=[10.0 + seed])]) for seed in (0, 1, 2)])
    code = (
        "import sys; from invertigo.studies.store import Store; from invertigo.studies.row_table import quick_table\n"
        f"laid, _ = quick_table(Store({str(tmp_path)!r}), rows=['model'], columns=[], value='psnr.mean', where={{}})\n"
        "print('torch' in sys.modules, laid.entries[0, 0].n)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "3"]
