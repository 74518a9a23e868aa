"""The first screen answers whoever knows nothing of the field: who, how sure, what was not examined, what to do."""

from __future__ import annotations

import dataclasses
import re
from html import unescape
from itertools import pairwise

import pytest
import torch
from specimens import faces, specimen
from test_html import Page, with_record

from invertigo.auditing import Audit
from invertigo.auditing.record import CONTROLS, ControlRecord, VerdictRecord
from invertigo.auditing.strangers import nearest_strangers
from invertigo.report import load, render_html, save
from invertigo.report.answer import answer
from invertigo.report.subject import same_client
from invertigo.report.words import hinted, spelled
from invertigo.types import Batch


def _plain(text: str) -> str:
    """The first screen without its tags: what stands before the glossary."""
    head = text.split("<main>")[1].split('<section class="terms"')[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", head)).split())


def opened(audit: Audit, **verdict: object) -> Audit:
    """The audit with an inconclusive verdict."""
    facts = {"headline": "This audit cannot tell: no image was rebuilt, but time ran out.", "detail": "", "remedy": ""}
    return with_record(audit, verdict=VerdictRecord.model_validate({"status": "inconclusive", **facts, **verdict}))


def test_the_first_screen_has_the_whole_answer(leaking: Audit) -> None:
    text, record = _plain(render_html(leaking)), leaking.record
    assert record.title in text
    assert record.verdict.headline in text
    assert "Whoever sees one client's update: 6 of 8, recognisably" in text
    assert "8 examples, which is few: 40 to 93 % of such examples come back (95 % interval)" in text
    assert "A malicious server that crafts the model it sends" in text
    assert record.verdict.remedy in text
    assert "1 caution to read" in text
    assert "8 private examples (images of 'faces'), model lenet" in text
    assert "the gradient of 1 local step in training mode; no defense" in text


def test_each_control_stands_there_with_its_status(resisting: Audit) -> None:
    controls = [
        ControlRecord(name=name, status=status, summary=f"About {name}.", facts={"gap": 0.5})
        for name, status in zip(CONTROLS, ("passed", "failed", "unknown", "not_applicable"))
    ]
    page = render_html(with_record(resisting, controls=controls))
    head = _plain(page)
    assert "Yes: replay passed" in head
    assert "No: full schedule failed: not every attack ran to its end" in head
    assert "Open: easier case not known: the attacks are not known to work on this model" in head
    assert "fit not needed here" in head
    details = Page(page).text
    for control in controls:
        assert details.count(control.summary) == 1
    assert "gap 0.5" in " ".join(details.split())


def test_resists_without_its_controls_says_so(resisting: Audit) -> None:
    assert "nothing came back, and the checks passed" in _plain(render_html(resisting))
    bare = _plain(render_html(with_record(resisting, controls=[])))
    assert "the checks passed" not in bare
    assert "checks are missing" in bare
    assert "none on record" in bare


def test_attacks_chosen_by_hand_are_told(resisting: Audit) -> None:
    text = _plain(render_html(with_record(opened(resisting), portfolio="chosen")))
    assert "chosen by hand: this says nothing about others" in text
    assert "chosen by hand" not in _plain(render_html(opened(resisting)))


def test_an_open_verdict_tells_what_is_missing_and_how_long_it_would_take(resisting: Audit) -> None:
    audit = opened(resisting, missing=["The attacks were cut short."], needs_seconds=600.0)
    for text in (_plain(render_html(audit)), str(audit)):
        assert "The attacks were cut short." in text
        assert "A budget of about 10 min would let every attack finish; this audit had 1 min." in text
    assert "More time alone would not settle it." in _plain(render_html(opened(resisting, missing=["No truth."])))


def test_a_control_that_failed_is_put_into_words(resisting: Audit) -> None:
    summary = "On rung 2 the truth leaves 0 of the update unexplained and the best candidate 0.08."
    fit = ControlRecord(name="fit", status="failed", summary=summary)
    headline = f"This audit cannot tell: no image was rebuilt, but {summary[0].lower()}{summary[1:]}"
    text = _plain(render_html(with_record(opened(resisting, headline=headline, missing=[summary]), controls=[fit])))
    assert "no image was rebuilt, but the search ended before it had explained the update" in text
    assert "unexplained" not in text


@pytest.mark.parametrize("which", ["leaking", "resisting"])
def test_no_jargon_before_its_explanation(which: str, request: pytest.FixtureRequest) -> None:
    text = render_html(request.getfixturevalue(which))
    head = _plain(text)
    assert "PSNR" not in head
    assert "SSIM" not in head
    for rung in re.finditer(r"[Rr]ung \d", head):
        assert head[rung.end() :].lstrip().startswith(("(", ":")), head[rung.start() - 30 : rung.end() + 30]
    after = text[text.index("Words on this page") :]
    terms = Page(f"<section>{after.split('</section>')[0]}</section>").text
    for word in ("PSNR: ", "rung", "line-up", "control"):
        assert word.rstrip(": ") in terms


def test_rungs_are_put_into_words_once() -> None:
    known: set[int] = set()
    assert spelled("up to rung 3.", known) == "up to rung 3 (inference mode, or buffers that are shared)."
    assert spelled("rung 3 again", known) == "rung 3 again"
    assert (
        spelled("a crafted model (rung 5) too")
        == "a crafted model (rung 5: a malicious server that crafts the model) too"
    )
    assert spelled("rung 2 (told here)") == "rung 2 (told here)"
    assert hinted("<b> rung 4") == '&lt;b&gt; <abbr title="similar public data or a trained prior">rung 4</abbr>'


def test_details_are_folded_and_end_matter_stands_once(leaking: Audit, resisting: Audit) -> None:
    page = Page(render_html([leaking, resisting]))
    assert not any("open" in fold for fold in page.all("details"))
    assert page.text.count("Methods") == 1
    assert page.text.count("@") == len(leaking.record.citations | resisting.record.citations)
    assert page.text.count("Words on this page") == 1


def test_headings_never_skip_a_level(leaking: Audit, resisting: Audit) -> None:
    for audits in (leaking, [leaking, resisting]):
        page = Page(render_html(audits))
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_each_part_has_its_own_verdict_and_none_speaks_for_another(leaking: Audit, resisting: Audit) -> None:
    text = render_html([leaking, resisting])
    head = _plain(text)
    assert "2 audits: 1 leaks, 1 resists." in head
    for audit in (leaking, resisting):
        assert audit.record.verdict.headline.split(" up to")[0] in head
        assert audit.record.title in head
    assert head.count("How sure this is") == 2


def test_a_part_that_fails_on_a_client_that_leaks_beside_it_says_so(leaking: Audit, resisting: Audit) -> None:
    """The molecules page said *resists* of the drug that stood exactly rebuilt beside it."""
    weak = with_record(opened(resisting), scenario=leaking.record.scenario | {"attacks": ["dlg"]})
    assert same_client(weak.record, leaking.record)
    text = _plain(render_html([leaking, weak]))
    assert text.count("Part 1 looks at the same client and rebuilt 6 of 8") == 1
    other = with_record(weak, scenario=weak.record.scenario | {"dtype": "float16"})
    assert "looks at the same client" not in _plain(render_html([leaking, other]))
    summed = with_record(weak, scenario=weak.record.scenario | {"adversary": {"clients": 4}})
    assert not same_client(summed.record, leaking.record)


def test_weaker_adversaries_are_told_apart_from_the_one_who_succeeds(leaking: Audit) -> None:
    levels = [
        level.model_copy(
            update={"examined": level.level in (1, 2, 3), "recovered": 6 * (level.level == 3), "reason": "a what-if: x"}
        )
        for level in leaking.record.levels
    ]
    found = answer(leaking.record.model_copy(update={"levels": levels})).findings
    assert [(one.what.split(",")[0], one.breached) for one in found] == [("none of 8", False), ("6 of 8", True)]
    assert "2 adversaries, the strongest of them whoever sees one update and learns the labels" in found[0].who
    assert found[1].condition == "a what-if: x"


def with_strangers(audit: Audit) -> Audit:
    kept = nearest_strangers(
        audit.domain,
        audit.record.attacks,
        audit.record.metrics[0],
        audit.reconstructions,
        audit.originals,
        Batch({"images": faces(200)[100:]}),
    )
    return dataclasses.replace(with_record(audit, private=True), strangers=kept)


def test_a_withheld_original_shows_the_line_up_it_won(leaking: Audit, tmp_path) -> None:
    audit = with_strangers(leaking)
    page = Page(render_html(audit))
    shown = [image for image in page.all("img") if str(image["alt"]).startswith("Stranger")]
    assert len(shown) == 5
    assert "among 100 public strangers it is the one most like the reconstruction (rank 1 of 101)" in page.text
    for other in (render_html(audit, include_originals=True), render_html(audit, redact=True)):
        assert "Stranger 1" not in other
    save(audit, tmp_path / "kept")
    assert torch.equal(load(tmp_path / "kept").strangers["images"], audit.strangers["images"])
    save(audit, tmp_path / "redacted", redact=True)
    assert not load(tmp_path / "redacted").strangers


def test_strangers_are_the_nearest_by_the_headline_score(leaking: Audit) -> None:
    audit, best = with_strangers(leaking), leaking.record.attacks[1]
    example = max(
        range(8), key=lambda i: (best.outcomes[i] != "nothing" and best.ranks[i] == 1) * best.scores["psnr"][i]
    )
    rebuilt = leaking.reconstructions["1/gauss_newton/images"][best.matching[example]].clamp(0, 1)
    errors = (faces(200)[100:] - rebuilt).square().mean((1, 2, 3))
    wanted = faces(200)[100:][errors.argsort()[:5]]
    assert torch.equal(audit.strangers["images"], wanted)


def test_nothing_won_shows_no_strangers(resisting: Audit) -> None:
    assert not with_strangers(resisting).strangers


def test_the_private_original_is_never_among_the_strangers(leaking: Audit) -> None:
    """Public data that hold the very picture do not bring it onto the page."""
    lineup = Batch({"images": torch.cat([leaking.originals["images"], faces(200)[100:]])})
    kept = nearest_strangers(
        leaking.domain,
        leaking.record.attacks,
        leaking.record.metrics[0],
        leaking.reconstructions,
        leaking.originals,
        lineup,
    )
    for image in kept["images"]:
        assert not any(torch.equal(image, private) for private in leaking.originals["images"])


def test_thirty_two_examples_are_mostly_folded() -> None:
    text = render_html(specimen(count=32))
    visible = re.sub(r"<details.*?</details>", "", text, flags=re.S)
    assert text.count('<figure class="example') == 32
    assert visible.count('<figure class="example') == 8
