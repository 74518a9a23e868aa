from __future__ import annotations

import inspect

import pytest

from invertigo.types import INVERTIGO, InvertigoError, MissingExtraError, Paper, ThreatLevel, did_you_mean, errors
from invertigo.types.extras import require


def test_every_error_is_an_invertigo_error():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(kinds) > 8
    assert all(issubclass(kind, InvertigoError) for kind in kinds)


@pytest.mark.parametrize(
    ("typed", "meant"), [("gauss_neuton", "gauss_newton"), ("invertinggradients", "inverting_gradients")]
)
def test_a_near_miss_is_suggested(typed, meant):
    assert did_you_mean(typed, ["dlg", "gauss_newton", "inverting_gradients"]) == f" Did you mean '{meant}'?"


def test_nothing_is_suggested_when_nothing_is_near():
    assert did_you_mean("zebra", ["dlg", "idlg"]) == ""


def test_a_missing_extra_names_its_install_command():
    with pytest.raises(MissingExtraError, match=r"'no_such_package'.*pip install 'invertigo\[flower\]'"):
        require("no_such_package.sub", "flower")


def test_an_installed_extra_is_returned():
    assert require("json", "whatever").loads("1") == 1


def test_every_rung_of_the_ladder_is_explained():
    assert [level.value for level in ThreatLevel] == [0, 1, 2, 3, 4, 5]
    assert len({level.summary for level in ThreatLevel}) == 6


PAPER = Paper("doe2020x", "A title", "Doe, Jane and Roe, Rick", 2020, "Some Conference", "2001.00001")


def test_a_paper_becomes_bibtex():
    entry = PAPER.bibtex()
    assert entry.startswith("@inproceedings{doe2020x,")
    assert entry.endswith("}")
    assert entry.count("{") == entry.count("}")
    for part in ("title = {A title}", "booktitle = {Some Conference}", "year = {2020}", "eprint = {2001.00001}"):
        assert part in entry


def test_a_preprint_is_misc():
    paper = Paper("roe2021y", "B", "Rick Roe", 2021, "arXiv preprint", "2101.1")
    assert paper.bibtex().startswith("@misc{")
    assert paper.short() == "Roe (2021)"
    assert PAPER.short() == "Doe et al. (2020)"


def test_a_group_of_authors_keeps_its_name():
    assert INVERTIGO.short() == "The Invertigo authors (2026)"
    assert "author = {{The Invertigo authors}}" in INVERTIGO.bibtex()
