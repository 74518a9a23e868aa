from __future__ import annotations

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from specimens import specimen

from invertigo.auditing import Audit
from invertigo.report.charts import forest, heat, lines
from invertigo.report.files import save
from invertigo.report.study import render_study, write_study
from invertigo.studies.claims import ClaimRecord
from invertigo.studies.conclusion import Conclusion
from invertigo.studies.judgement import judge
from invertigo.studies.spec import parse_study
from invertigo.studies.store import CellResult, Store
from invertigo.studies.table import build_table

AWKWARD = '<b>&"quoted"</b>'
STUDY = {
    "name": "faces",
    "title": "Faces, quietly & loudly",
    "axes": {"noise": [{"label": n, "set": {"data.count": 1}} for n in (0.02, 0.2, 2.0)]},
    "claims": [
        {
            "name": "noise-hides",
            "sentence": "More noise hides more.",
            "source": AWKWARD,
            "whose": "paper",
            "order": {"value": "psnr.mean", "axis": "noise", "along": [0.02, 0.2, 2.0], "direction": "decreasing"},
        },
        {
            "name": "everything-is-hidden",
            "sentence": "Nothing comes back.",
            "threshold": {"value": "recovered", "where": {"noise": 0.02}, "op": "<", "number": 1},
        },
        {
            "name": "never-run",
            "sentence": "Nobody looked.",
            "threshold": {"value": "psnr.mean", "where": {"noise": 7}, "op": ">", "number": 1},
        },
    ],
}


@cache
def audited(noise: float, private: bool) -> Audit:
    return specimen(count=3, noise=noise, size=16, private=private)


def study(folder: Path, private: bool = False) -> Conclusion:
    """Cells of two axes, one of them failed and one not run; audits and their tensors lie where a store puts them."""
    results = []
    for model in ("lenet", "convnet"):
        for noise in (0.02, 0.2, 2.0):
            for seed in (0, 1):
                key = f"{model}{noise}{seed}".replace(".", "")
                audit = audited(noise * (1 + 0.1 * seed), private)
                save(audit, folder / "cells" / key)
                results.append(CellResult({"model": model, "noise": noise}, seed, audit.record, None, key))
    trace = f"Traceback (most recent call last):\n  somewhere\nRuntimeError: out of {AWKWARD}"
    results.append(CellResult({"model": "vit", "noise": 0.02}, 0, None, trace, "failed0"))
    results.append(CellResult({"model": "vit", "noise": 0.2}, 0, None, None, "absent0"))
    parsed = parse_study(STUDY)
    done = [result for result in results if result.record is not None]
    return Conclusion(parsed, "smoke", results, judge(parsed.claims, done), Store(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def found(folder) -> Conclusion:
    return study(folder)


@pytest.fixture(scope="module")
def page(found, folder) -> str:
    return write_study(found, folder / "report.html").read_text(encoding="utf-8")


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, value or "") for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "img", "line", "path", "rect", "circle", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "path", "rect", "circle"):
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing(page):
    links = Links()
    links.feed(page)
    assert links.open == []
    assert all(value.startswith("data:image/") for tag, value in links.found if tag == "img")
    assert not [value for _, value in links.found if re.match(r"(https?:)?//", value)]
    assert "<script>" not in page
    assert "default-src 'none'" in page


def test_claims_come_first_with_their_figures(page, found):
    assert [claim.status for claim in found.claims] == ["holds", "does not hold", "inconclusive"]
    assert page.index('id="claim-noise-hides"') < page.index('class="chart"') < page.index('id="cells"')
    for claim in found.claims:
        part = page[page.index(f'id="claim-{claim.name}"') :].split("</li>")[0]
        assert claim.status in part
        assert claim.sentence in part
        assert ('class="forest"' in part) == (claim.estimate is not None)
    told = json.loads(re.search(r'id="invertigo-claims">(.*?)</script>', page, re.S)[1])
    assert [claim["status"] for claim in told] == [claim.status for claim in found.claims]
    assert told[0]["source"] == AWKWARD


def test_text_of_users_is_escaped(page):
    assert AWKWARD not in page
    assert "out of &lt;b&gt;" in page


def test_every_cell_is_linked_to_its_folder_and_config(page, found, folder):
    links = Links()
    links.feed(page)
    hrefs = {value for tag, value in links.found if tag == "a"}
    for result in found.results:
        assert (f"cells/{result.key}/" in hrefs) == (result.key != "absent0")
        assert (f"cells/{result.key}/config.json" in hrefs) == (result.key != "absent0")
    elsewhere = render_study(found, folder.parent / "elsewhere.html")
    assert f'href="{folder.name}/cells/lenet0020/config.json"' in elsewhere


def test_failed_cells_show_their_traceback(page):
    assert 'id="failed"' in page
    assert "RuntimeError" in page
    assert page.count('class="failed"') == 1
    assert page.count('class="missing"') == 1


def test_lines_along_numbers_and_reconstructions_for_each_point(page):
    assert "Mean PSNR in dB along noise" in page
    assert page.count('<path class="line"') == 2  # a line for each model that was measured
    assert page.count('<figure class="example">') == 6  # a picture for each point, whatever its seeds


def test_a_redacted_page_has_no_picture_and_a_private_one_no_original(found, folder):
    redacted = render_study(found, folder / "r.html", redact=True)
    assert "data:image" not in redacted
    assert "Redacted copy" in redacted
    assert "withheld" in render_study(found, folder / "r.html", include_originals=False)


def test_private_audits_say_that_the_page_leaks(tmp_path):
    page = render_study(study(tmp_path, True), tmp_path / "report.html")
    assert "This page is itself a leak" in page
    assert "The original is private" in page


def test_utility_is_drawn_only_where_it_was_measured(page, found, folder):
    assert 'id="utility"' not in page
    measured = {result.key: 0.5 + 0.05 * i for i, result in enumerate(found.results[:4])}
    drawn = render_study(found, folder / "u.html", utility=measured)
    part = drawn[drawn.index('id="utility"') :].split("</section>")[0]
    assert part.count('class="mark"') == 4


def test_a_study_without_any_result_has_a_page(tmp_path):
    parsed = parse_study(STUDY)
    empty = [CellResult({"noise": 0.2}, 0, None, None, "absent0")]
    page = render_study(
        Conclusion(parsed, None, empty, judge(parsed.claims, empty), Store(tmp_path)), tmp_path / "x.html"
    )
    assert "not run yet" in page
    assert page.count("inconclusive") >= 3


def test_a_line_chart_places_means_between_its_ticks(found):
    done = [result for result in found.results if result.record is not None]
    table = build_table(done, rows=["model"], columns=["noise"])
    (panel,) = lines([("", table)], "PSNR")
    entry = table.entry(0, 1)
    assert entry is not None
    (top, high), (bottom, low) = panel.y_ticks[-1], panel.y_ticks[0]
    share = (entry.mean - float(low)) / (float(high) - float(low))
    assert panel.series[0].marks[1].y == pytest.approx(bottom + share * (top - bottom))
    assert panel.series[0].marks[1].low > panel.series[0].marks[1].y > panel.series[0].marks[1].high
    drawn = heat(table)
    assert drawn is not None
    percents = [tile.percent for _, tiles in drawn.rows for tile in tiles]
    assert min(percents) == 0
    assert max(percents) == 100


def test_a_forest_keeps_the_order_of_its_numbers():
    facts = {"name": "c", "sentence": "s", "source": "", "whose": "ours", "status": "holds"}
    drawn = forest(ClaimRecord(**facts, estimate=3.0, low=1.0, high=4.0, n=9, bound="> -2"))
    assert drawn is not None
    assert 0 < drawn.bound < drawn.low < drawn.estimate < drawn.high < 100
    assert forest(ClaimRecord(**facts)) is None
