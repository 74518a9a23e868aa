"""A study as one HTML file that needs nothing else: claims first, then what they rest on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from invertigo.report.charts import HEIGHT, WIDTH
from invertigo.report.files import PAGE, write_aside
from invertigo.report.html import environment
from invertigo.report.study_views import study_view
from invertigo.studies.conclusion import Conclusion, refuse_empty

_STYLES = ("report.css", "study.css", "frontier.css")


def write_study(
    found: Conclusion,
    path: str | Path,
    *,
    utility: Mapping[str, float] | None = None,
    include_originals: bool | None = None,
    redact: bool = False,
) -> Path:
    """Write the report of a study and return its path.

    Args:
        path: the HTML file; links to cells are relative to it.
        utility: accuracy in [0, 1] of the model that a cell's client trains, by cell key, where it was measured.
        include_originals: show private originals. None shows those of bundled public data only.
        redact: scores only, no picture.

    Raises: OutputError when the file cannot be written; MissingDataError when there is nothing to show.
    """
    refuse_empty(found)
    page = render_study(found, path, utility=utility, include_originals=include_originals, redact=redact)
    return write_aside(Path(path), lambda aside: aside.write_text(page, encoding="utf-8"))


def keep_page(found: Conclusion) -> None:
    """Write the report of a study beside its cells, wherever they lie. Raises: OutputError, MissingDataError."""
    home = str(found.store.url)
    if "://" not in home:
        write_study(found, Path(home) / PAGE)
        return
    refuse_empty(found)
    found.store.place.write(PAGE, render_study(found, PAGE).encode("utf-8"))


def render_study(
    found: Conclusion,
    path: str | Path,
    *,
    utility: Mapping[str, float] | None = None,
    include_originals: bool | None = None,
    redact: bool = False,
) -> str:
    """The report as text; arguments as in `write_study`."""
    view = study_view(found, Path(path), utility=utility, include_originals=include_originals, redact=redact)
    folder = files("invertigo.report") / "templates"
    return (
        environment()
        .get_template("study.html.j2")
        .render(
            view=view,
            study=found.study,
            preset=found.preset,
            style=Markup("\n".join((folder / name).read_text(encoding="utf-8") for name in _STYLES)),
            data=_embedded(found),
            plot=(WIDTH, HEIGHT),
        )
    )


def _embedded(found: Conclusion) -> Markup:
    """The claims as JSON that no HTML parser can be talked out of."""
    text = json.dumps([json.loads(claim.model_dump_json()) for claim in found.claims], separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
