"""One HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from invertigo.auditing.record import AuditRecord
from invertigo.report import curves
from invertigo.report.files import together, write_aside
from invertigo.report.numbers import duration, number, signed
from invertigo.report.tables import Summary, cite, gain
from invertigo.report.titles import notices, page_title, tally
from invertigo.report.views import MAX_OPEN, OUTCOMES, View, beside, differences, view
from invertigo.report.words import glossary, hinted

if TYPE_CHECKING:
    from invertigo.auditing import Audit

_STYLE = files("invertigo.report") / "templates" / "report.css"


def write_html(
    audit: Audit | Sequence[Audit],
    path: str | Path,
    *,
    include_originals: bool | None = None,
    redact: bool = False,
    title: str | None = None,
) -> Path:
    """Write the report of one audit, or of several side by side, and return its path.

    Args:
        audit: one audit (its companions come with it), or a sequence of them.
        path: the HTML file; it is replaced as a whole.
        include_originals: show the private originals. None shows those of bundled public data only.
        redact: scores only, neither originals nor reconstructions.
        title: headline of a page with several audits.

    Raises: OutputError when the file cannot be written.
    """
    page = render_html(audit, include_originals=include_originals, redact=redact, title=title)
    return write_aside(Path(path), lambda aside: aside.write_text(page, encoding="utf-8"))


def render_html(
    audit: Audit | Sequence[Audit],
    *,
    include_originals: bool | None = None,
    redact: bool = False,
    title: str | None = None,
) -> str:
    """The report as text; arguments as in `write_html`."""
    views = beside(
        [
            view(one, anchor=f"audit-{i}", include_originals=include_originals, redact=redact)
            for i, one in enumerate(together(audit), start=1)
        ]
    )
    records = [one.record for one in views]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            views=views,
            title=title or page_title(records),
            tally=tally(records),
            notices=list(notices(views)),
            words=list({word.term: word for record in records for word in glossary(record)}.values()),
            citations=list(dict.fromkeys(entry for record in records for entry in record.citations.values())),
            differences=differences(views),
            data=embedded(records),
            style=Markup(_STYLE.read_text(encoding="utf-8")),  # our own file, nothing of the user's
        )
    )


def embedded(records: Sequence[AuditRecord]) -> Markup:
    """The results as JSON that no HTML parser can be talked out of: every `<` is written as an escape."""
    payload = [json.loads(record.model_dump_json()) for record in records]
    text = json.dumps(payload[0] if len(payload) == 1 else payload, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def environment() -> Environment:
    """Escapes everything, whatever a template is called; an undefined name is an error, not an empty string."""
    environment = Environment(
        loader=PackageLoader("invertigo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable] = {"number": number, "signed": signed, "duration": duration, "interval": interval}
    environment.filters.update(filters | {"hinted": hinted})
    environment.globals.update(
        outcomes=OUTCOMES, most_open=MAX_OPEN, gain=_gain, cite=cite, box=(curves.WIDTH, curves.HEIGHT)
    )
    return environment


def interval(summary: Summary, unit: str) -> str:
    """The bootstrap interval of the mean as `low to high`; empty for one example or an infinite score."""
    values = [value for value in summary.values if abs(value) != float("inf")]
    if len(values) < 2 or len(values) < len(summary.values):
        return ""
    import torch

    from invertigo.evaluation import bootstrap

    found = bootstrap(torch.tensor(values), generator=torch.Generator().manual_seed(0))
    return f"{number(found.low, unit)} to {number(found.high, unit)}"


def _gain(one: View, position: int) -> float | None:
    return gain(one.record, one.attacks[position])
