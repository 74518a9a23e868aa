"""What stands above the verdicts of a page: its title, how the parts came out, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from invertigo.auditing.record import AuditRecord

if TYPE_CHECKING:
    from invertigo.report.views import View

_ENDED = {"leaks": ("leaks", "leak"), "resists": ("resists", "resist"), "inconclusive": ("cannot tell", "cannot tell")}


def page_title(records: Sequence[AuditRecord]) -> str:
    """What was audited; of several parts, the first two by name."""
    titles = [record.title for record in records]
    if len(titles) == 1:
        return titles[0]
    rest = _lowered(titles[1]) if len(titles) == 2 else f"{len(titles) - 1} more audits"
    return f"{titles[0]}, beside {rest}"


def tally(records: Sequence[AuditRecord]) -> str:
    """How the parts came out, the worst first: no part speaks for another."""
    statuses = [record.verdict.status for record in records]
    counts = [(statuses.count(status), words) for status, words in _ENDED.items() if status in statuses]
    ended = ", ".join(f"{n} {one if n == 1 else many}" for n, (one, many) in counts)
    return f"{len(records)} audits: {ended}. Each verdict holds for its own part and says nothing about the others."


def notices(views: Sequence[View]) -> Iterator[tuple[str, str]]:
    """(heading, sentence) on what the page itself gives away."""
    if any(view.redacted for view in views):
        yield (
            "Redacted copy.",
            "Scores only: neither the private examples nor their reconstructions are in this file.",
        )
    elif any(view.record.private for view in views):
        shown = "private examples and what was rebuilt of them"
        shown = (
            shown if any(v.originals and v.record.private for v in views) else "what was rebuilt of private examples"
        )
        yield (
            "This page is itself a leak.",
            f"It shows {shown}. Store it and pass it on as you would the data themselves; "
            "`invertigo report --redact` keeps only the scores.",
        )


def _lowered(title: str) -> str:
    """A title inside a sentence: its first letter small, unless the word is a name (`CIFAR`, `ResNet`)."""
    first = title.split(" ")[0]
    return title[0].lower() + title[1:] if first[1:].islower() or len(first) == 1 else title
