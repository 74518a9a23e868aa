from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
from specimens import specimen

from invertigo.auditing import Audit
from invertigo.auditing.record import AuditRecord
from invertigo.report import render_html, write_html
from invertigo.types import OutputError

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced, and gathers what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data += data
        elif self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def with_record(audit: Audit, **changes: object) -> Audit:
    return dataclasses.replace(audit, record=audit.record.model_copy(update=changes))


@pytest.fixture(scope="module")
def page(leaking: Audit) -> Page:
    return Page(render_html(leaking))


def test_the_verdict_comes_first_and_the_rest_in_order(leaking: Audit, page: Page) -> None:
    parts = [
        leaking.record.verdict.headline,
        "Who could rebuild what",
        "How sure this is",
        "Not examined",
        "What to do",
        leaking.record.verdict.remedy,
        "Words on this page",
        "Held, rebuilt, difference",
        "Before relying on this",
        "The verdict and its controls",
        "The threat ladder, rung by rung",
        "Attacks, beside guesses that read nothing",
        "How the attacks converged",
        "The setting, and how to repeat it",
        "Methods",
    ]
    positions = [page.text.index(part) for part in parts]
    assert positions == sorted(positions)


def test_nothing_is_loaded_from_anywhere(leaking: Audit, page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/"))
    style = render_html(leaking).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert not page.all("link")
    assert [s.get("type") for s in page.all("script")] == ["application/json"]
    policies = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_it_can_be_read_aloud(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("img")
    assert all(image.get("alt") for image in page.all("img"))
    headers = page.all("th")
    assert headers
    assert all(header.get("scope") in ("row", "col", "rowgroup") for header in headers)
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))


def test_the_most_exposed_example_comes_first(leaking: Audit, page: Page) -> None:
    best = leaking.record.attacks[1]
    worst_first = sorted(range(8), key=lambda i: -best.scores["psnr"][i])
    shown = [int(m) for m in re.findall(r'class="no">(\d+)<', render_html(leaking))]
    assert shown == [i + 1 for i in worst_first]
    assert f"{max(best.scores['psnr']):.1f} dB" in page.text


def test_each_truth_stands_beside_its_own_reconstruction(leaking: Audit) -> None:
    """The attack returned the batch in another order; the page undoes it."""
    from base64 import b64encode

    text = render_html(leaking)
    best, domain = leaking.record.attacks[1], leaking.domain
    truth = domain.render(leaking.originals.fields)
    rebuilt = domain.render({"images": leaking.reconstructions["1/gauss_newton/images"]})
    assert best.matching != sorted(best.matching)
    for card in text.split('<figure class="example')[1:]:
        index = int(re.search(r'class="no">(\d+)<', card)[1]) - 1
        uris = re.findall(r'data:image/png;base64,([^"]+)"', card.split("</figure>")[0])
        assert len(uris) == 3
        assert uris[0] == b64encode(truth[index]).decode()
        assert uris[1] == b64encode(rebuilt[best.matching[index]]).decode()


def test_a_rung_that_was_not_examined_is_never_marked_as_breached(leaking: Audit) -> None:
    levels = [level.model_copy(update={"recovered": 6}) for level in leaking.record.levels]
    text = render_html(with_record(leaking, levels=levels))
    assert text.count('class="examined breached') == 2
    assert "unexamined breached" not in text


def test_attacks_stand_beside_baselines(leaking: Audit, page: Page) -> None:
    for attack in leaking.record.attacks:
        assert attack.attack in page.text
    for baseline in leaking.record.baselines:
        assert baseline.label in page.text
    assert "Conv2d; this attack reads" in page.text  # a refused attack says why
    assert "Zhu et al. (2019)" in page.text


def test_the_embedded_result_is_the_result(leaking: Audit, page: Page) -> None:
    assert AuditRecord.model_validate(json.loads(page.data)) == leaking.record


def test_thirty_two_images_fit_into_a_megabyte(tmp_path) -> None:
    path = write_html(specimen(count=32, size=32, channels=3), tmp_path / "page.html")
    text = path.read_text()
    assert text.count('<figure class="example') == 32
    assert len(text.encode()) < 1_000_000


def test_originals_of_private_data_stay_out(leaking: Audit) -> None:
    private = with_record(leaking, private=True)
    truth = [
        image["src"]
        for image in Page(render_html(leaking)).all("img")
        if re.fullmatch(r"Private example \d+", image["alt"])
    ]
    assert truth
    text = render_html(private)
    assert not any(source in text for source in truth if source)
    assert "The originals are private" in text
    assert "This page is itself a leak" in text
    assert "data:image" in text  # the reconstruction is there
    assert "This page is itself a leak" not in render_html(leaking)


def test_originals_can_be_asked_for_and_refused(leaking: Audit) -> None:
    private = with_record(leaking, private=True)
    assert 'alt="Private example 1"' in render_html(private, include_originals=True)
    assert 'alt="Private example 1"' not in render_html(leaking, include_originals=False)


@pytest.mark.parametrize("private", [True, False])
def test_a_redacted_page_has_no_pixels(leaking: Audit, private: bool) -> None:
    text = render_html(with_record(leaking, private=private), redact=True, include_originals=True)
    assert "data:image" not in text.replace("img-src data:", "")
    assert not Page(text).all("img")
    assert "Redacted copy" in text
    assert f"{max(leaking.record.attacks[1].scores['psnr']):.1f} dB" in text


def test_nothing_a_user_names_can_run(leaking: Audit) -> None:
    evil = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
    record = leaking.record
    changes = {
        "title": evil,
        "command": evil,
        "knowledge": [evil],
        "scenario": {"model": {"name": evil}, evil: evil, "description": evil},
        "environment": {evil: evil},
        "citations": {"evil": evil},
        "attacks": [a.model_copy(update={"attack": evil, "paper": evil, "notes": [evil]}) for a in record.attacks],
        "flags": [f.model_copy(update={"message": evil, "remedy": evil}) for f in record.flags],
        "verdict": record.verdict.model_copy(update={"headline": evil, "detail": evil, "remedy": evil}),
    }
    page = Page(render_html(with_record(leaking, **changes)))
    assert len(page.all("script")) == 1
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert AuditRecord.model_validate(json.loads(page.data)).title == evil


def test_several_audits_are_compared(leaking: Audit, resisting: Audit) -> None:
    text = render_html([leaking, resisting], title="Two clients")
    page = Page(text)
    cards = text.split('<div class="cards">')[1].split("<article")[0]
    assert cards.index('class="card leaks"') < cards.index('class="card resists"')
    assert len(page.all("article")) == 2
    assert len({i for _, a in page.tags if (i := a.get("id"))}) == len([1 for _, a in page.tags if a.get("id")])
    assert [entry["title"] for entry in json.loads(page.data)] == [leaking.record.title, resisting.record.title]


def test_companions_share_the_page(leaking: Audit, resisting: Audit) -> None:
    both = dataclasses.replace(leaking, companions=(resisting,))
    assert len(Page(render_html(both)).all("article")) == 2


def test_the_settings_that_differ_are_named(leaking: Audit) -> None:
    other = with_record(leaking, scenario={**leaking.record.scenario, "dtype": "float32"})
    text = Page(render_html([leaking, other])).text
    differs = text[text.index("What differs") : text.index("Methods")]
    assert "float32" in differs
    assert "lenet" not in differs


def test_an_audit_without_truth_shows_what_was_rebuilt(leaking: Audit) -> None:
    blind = [
        a.model_copy(update={"scores": {}, "matching": [], "ranks": [], "outcomes": []}) for a in leaking.record.attacks
    ]
    audit = dataclasses.replace(with_record(leaking, attacks=blind, baselines=[], private=True), originals=None)
    page = Page(render_html(audit))
    assert "not given the private examples" in page.text
    assert "not scored" in page.text
    assert page.all("img")


def test_an_audit_without_attacks_is_a_page_too(leaking: Audit) -> None:
    audit = with_record(leaking, attacks=[], baselines=[], flags=[], citations={}, levels=[])
    assert "No attack was run" in Page(render_html(audit)).text


def test_a_folder_that_cannot_be_written_is_named(leaking: Audit, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        write_html(leaking, tmp_path / "file" / "page.html")


def test_notes_of_an_attack_have_a_row_as_wide_as_the_table():
    page = render_html(specimen())
    head, notes = page.split('<table class="attacks')[1].split('<tr role="row" class="notes">', 1)
    columns = head.split("</thead>")[0].count("columnheader")
    cell, text = re.match(r'<td role="cell" class="why" colspan="(\d+)"><small>(.*?)</small>', notes).groups()
    assert int(cell) == columns
    assert text == "4 restarts as one batch"
