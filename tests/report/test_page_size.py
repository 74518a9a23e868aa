"""How tall a page is, and whether its answer fits one screen; measured in Chromium where there is one."""

from __future__ import annotations

import pytest
from browser import CHROMIUM, Browser

from invertigo.auditing import Audit
from invertigo.report import write_html

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
BOTTOM = "Math.round(document.querySelector('.verdict, .compare').getBoundingClientRect().bottom)"
HEIGHT = "document.documentElement.scrollHeight"
SIDEWAYS = "document.documentElement.scrollWidth - innerWidth"
SHOWN = "[...document.querySelectorAll('.inside')].map(one => one.checkVisibility())"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_the_answer_fits_one_screen_and_the_page_is_short(browser, leaking: Audit, resisting: Audit, tmp_path) -> None:
    for name, audits, tallest in (("one", leaking, 2600), ("two", [leaking, resisting], 3800)):
        page = write_html(audits, tmp_path / f"{name}.html")
        browser.open(page, 1280, 800)
        assert browser.ask(BOTTOM) <= 820, name
        assert browser.ask(HEIGHT) <= tallest, name


def test_a_phone_needs_no_scrolling_sideways(browser, leaking: Audit, resisting: Audit, tmp_path) -> None:
    browser.open(write_html([leaking, resisting], tmp_path / "page.html"), 390, 844)
    assert browser.ask(SIDEWAYS) <= 0
    assert browser.ask(HEIGHT) <= 7000


def test_what_is_folded_on_the_screen_is_printed(browser, leaking: Audit, tmp_path) -> None:
    page = write_html(leaking, tmp_path / "page.html")
    browser.open(page, 1280, 800)
    folded = browser.ask(SHOWN)
    assert len(folded) >= 5
    assert not any(folded)
    browser.open(page, 1280, 800, media="print")
    assert browser.ask(SHOWN) == [True] * len(folded)
