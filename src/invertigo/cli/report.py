"""`invertigo report`: draw results again, several on one page if wanted, or a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT…", help="Folders of `invertigo audit`, or result.json; or one study."),
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

    if len(results) == 1 and (results[0] / "study.json").is_file():
        from invertigo.report.study import write_study
        from invertigo.studies.conclusion import conclude

        found = conclude(results[0], matching=matching)
        for note in found.notes():
            typer.echo(f"invertigo: {note}", err=True)
        typer.echo(write_study(found, out, include_originals=include_originals, redact=redact))
        return
    page = write_html(load_all(*results), out, include_originals=include_originals, redact=redact, title=title)
    typer.echo(page)
