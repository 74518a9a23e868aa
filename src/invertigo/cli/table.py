"""`invertigo table`: a value of a study, by any of its axes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How the table is printed."""

    markdown = "markdown"
    csv = "csv"
    latex = "latex"


def table(
    study: Annotated[str, typer.Argument(metavar="DIR", help="The folder or URL of a study.")],
    rows: Annotated[list[str] | None, typer.Option("--rows", "-r", metavar="AXIS", help="An axis; repeatable.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--columns", "-c", metavar="AXIS", help="An axis; repeatable.")
    ] = None,
    value: Annotated[
        str, typer.Option("--value", "-v", help="metric.mean|median|worst|best, recovered, identified, over_guess, …")
    ] = "psnr.mean",
    where: Annotated[
        list[str] | None, typer.Option("--where", "-w", metavar="AXIS=VALUE", help="Only these cells; repeatable.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How it is printed.")] = Format.markdown,
) -> None:
    """Tabulate a study.

    Each place is the mean over seeds, ± half of its 95 % interval. Axes: those of the study, `seed`, and `attack` and
    `level` as the audits recorded them. Missing cells are shown as –.
    """
    from invertigo.studies.conclusion import conclude
    from invertigo.studies.slices import axes_of
    from invertigo.studies.table import build_table

    found = conclude(study)
    row_axes = _words(rows)
    column_axes = _words(columns)
    if not row_axes and not column_axes:
        row_axes = list(axes_of(found.results)) or ["seed"]
    laid = build_table(found.results, rows=row_axes, columns=column_axes, value=value, where=_where(where or []))
    typer.echo(laid.format(format.value))
    for note in laid.notes():
        typer.echo(note, err=True)


def _words(given: list[str] | None) -> list[str]:
    """`--rows a,b` and `--rows a --rows b` mean the same."""
    return [axis.strip() for entry in given or [] for axis in entry.split(",") if axis.strip()]


def _where(given: list[str]) -> dict[str, Any]:
    from invertigo.types.errors import ConfigurationError
    from invertigo.types.untrusted import read_yaml

    chosen: dict[str, Any] = {}
    for entry in given:
        axis, equals, text = entry.partition("=")
        if not equals:
            raise ConfigurationError(f"--where is {entry!r}; write AXIS=VALUE, e.g. --where attack=dlg.")
        try:
            chosen[axis.strip()] = read_yaml(text)
        except ValueError:
            chosen[axis.strip()] = text
    return chosen
