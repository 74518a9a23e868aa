"""The page's vocabulary: adversaries and terms of the field in words that a reader who is new to them knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape

from invertigo.auditing.record import AuditRecord

WHO = {
    0: "whoever sees only the sum of several clients' updates",
    1: "whoever sees one client's update",
    2: "whoever sees one update and learns the labels or the batch statistics from elsewhere",
    3: "whoever sees one update computed in inference mode, or the client's buffers",
    4: "whoever sees one update and has similar public data or a trained prior",
    5: "a malicious server that crafts the model it sends",
}
"""The adversary on each rung, as a subject or after "not examined:"."""

_RUNGS = {
    0: "only a sum of several clients' updates is seen",
    1: "one client's update is seen, and nothing else",
    2: "labels or batch statistics are known too",
    3: "inference mode, or buffers that are shared",
    4: "similar public data or a trained prior",
    5: "a malicious server that crafts the model",
}
CONTROLS = {
    "replay": "the simulated training step gives the update that was received",
    "schedule": "every attack ran to the end of its own schedule",
    "positive": "the same attacks do rebuild something in an easier case",
    "fit": "what the attacks found explains the update as well as the truth does",
}
"""What each control asks."""
SHORTCOMINGS = {
    "replay": "the training step that the attacks simulated is not known to be the one that made the update",
    "schedule": "not every attack ran to its end",
    "positive": "the attacks are not known to work on this model",
    "fit": "the search ended before it had explained the update, so that a better one may find more",
}
"""What a control that did not pass means for the verdict, in words without numbers."""
CONTROL_NAMES = {
    "replay": "replay",
    "schedule": "full schedule",
    "positive": "easier case",
    "fit": "fit",
}
CONTROL_STATES = {"passed": "passed", "failed": "failed", "unknown": "not known", "not_applicable": "not needed here"}
EXPLAINED = {
    "PSNR": "how close two pictures are, in decibels (dB): under about 15 little is shared, 60 and more is exact",
    "SSIM": "how alike two pictures are in structure, 1 being the same",
    "LPIPS": "how different two pictures look to a trained network, 0 being the same",
}
"""Scores that a reader may meet without knowing them, by label."""
_RUNG = re.compile(r"\b[Rr]ung\s(?P<level>[0-5])\b(?P<more>\s?\(|\))?")


@dataclass(frozen=True)
class Word:
    """A term and what it means here."""

    term: str
    meaning: str


def glossary(record: AuditRecord) -> Iterator[Word]:
    """The terms that a page on `record` uses, each explained in one line."""
    yield Word("update", "what a client sends after training: a gradient, or how its parameters changed")
    yield Word("rebuilt exactly", "equal to the private example, to rounding")
    yield Word(
        "recognisable",
        "so near that a person would know it: nearer than any guess made without the update, and first in a line-up",
    )
    if any(attack.decoys for attack in record.attacks):
        yield Word(
            "line-up",
            "the private example is hidden among strangers that are sorted by likeness to the reconstruction; "
            "rank 1 means that it is picked out",
        )
    headline = record.metrics[0]
    yield Word(headline.label, EXPLAINED.get(headline.label) or _first_sentence(headline.description) or headline.name)
    yield Word("rung", "a step of the threat ladder, from 0 (knows least) to 5 (a malicious server); see below")
    yield Word("control", "a check that the instrument worked; without it, finding nothing says nothing")


def spelled(text: str, known: set[int] | None = None) -> str:
    """`text` with each rung put into words where it is first named; `known` remembers those that were."""
    known = set() if known is None else known

    def words(match: re.Match[str]) -> str:
        level, follows = int(match["level"]), match["more"] or ""
        new = level not in known
        known.add(level)
        if not new or follows.endswith("("):
            return match[0]
        name = match[0].removesuffix(follows)
        return f"{name}: {_RUNGS[level]})" if follows else f"{name} ({_RUNGS[level]})"

    return _RUNG.sub(words, text)


def hinted(text: str) -> Markup:
    """`text`, escaped, with what each rung stands for as a hint to whoever points at it."""
    return Markup(_RUNG.sub(_hint, str(escape(text))))


def _hint(match: re.Match[str]) -> str:
    follows = match["more"] or ""
    return f'<abbr title="{escape(_RUNGS[int(match["level"])])}">{match[0].removesuffix(follows)}</abbr>{follows}'


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")
