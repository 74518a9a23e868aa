"""`invertigo report`: draw results again, several on one page if wanted, or a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[str],
        typer.Argument(metavar="RESULT…", help="Folders of `invertigo audit`, or result.json; or one study. URLs too."),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    redact: Annotated[bool, typer.Option("--redact", help="Scores only, no picture.")] = False,
    include_originals: Annotated[
        bool | None, typer.Option(help="Show the private originals, where they were stored.")
    ] = None,
    matching: Annotated[
        bool, typer.Option("--matching", help="Of a study, leave out cells that the present code would compute anew.")
    ] = False,
    title: Annotated[str | None, typer.Option(help="Headline of a page with several results.")] = None,
) -> None:
    """Draw one result, several side by side, or a study."""
    from invertigo.report import load_all, write_html
    from invertigo.studies.store import STUDY, Store

    if len(results) == 1 and Store(results[0]).place.read(STUDY) is not None:
        _of_study(results[0], out, matching, include_originals=include_originals, redact=redact)
        return
    page = write_html(load_all(*results), out, include_originals=include_originals, redact=redact, title=title)
    typer.echo(page)


def _of_study(place: str, out: Path, matching: bool, *, include_originals: bool | None, redact: bool) -> None:
    """Conclude a study, all of its shards together: its flat files beside the cells, and its page."""
    from invertigo.report.study import write_study
    from invertigo.studies.conclusion import conclude, write_conclusion

    found = conclude(place, matching=matching)
    for note in found.notes():
        typer.echo(f"invertigo: {note}", err=True)
    if not matching:
        write_conclusion(found)
    typer.echo(write_study(found, out, include_originals=include_originals, redact=redact))
