"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from invertigo.cli import audit, catalogue, check, doctor, frontier, guard, report, study, table
from invertigo.cli.errors import debugging, guarded

app = typer.Typer(
    help="Audit how much of a client's private data can be rebuilt from the updates it sends.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("audit")(guarded(audit.audit))
app.command("doctor")(guarded(doctor.doctor))
app.command("list")(guarded(catalogue.list_))
app.command("show")(guarded(catalogue.show))
app.command("table")(guarded(table.table))
app.command("report")(guarded(report.report))
app.command("check")(guarded(check.check))
app.command("frontier")(guarded(frontier.frontier))
app.command("guard")(guarded(guard.guard))
app.command("study", cls=study.StudyCommand)(guarded(study.study))


def _version(wanted: bool | None) -> None:
    if wanted:
        from invertigo import __version__

        typer.echo(f"invertigo {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="INVERTIGO_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Audit how much of a client's private data can be rebuilt from the updates it sends."""
    debugging.set(debug)
