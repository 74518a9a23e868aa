"""`invertigo table`: a value of a study, by any of its axes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from invertigo.studies.table import Table


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
    matching: Annotated[
        bool, typer.Option("--matching", help="Leave out cells that the present code would compute anew.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How it is printed.")] = Format.markdown,
) -> None:
    """Tabulate a study.

    Each place is the mean over seeds, ± half of its 95 % interval. Axes: those of the study, `seed`, and `attack` and
    `level` as the audits recorded them. Missing cells are shown as –.
    """
    from invertigo.studies.row_table import quick_table
    from invertigo.studies.store import Store

    row_axes, column_axes, chosen = _words(rows), _words(columns), _where(where or [])
    quick = quick_table(Store(study), rows=row_axes, columns=column_axes, value=value, where=chosen, matching=matching)
    laid, told = quick or _from_cells(study, row_axes, column_axes, value, chosen, matching)
    typer.echo(laid.format(format.value))
    for note in [*laid.notes(), *told]:
        typer.echo(note, err=True)


def _from_cells(
    study: str, rows: list[str], columns: list[str], value: str, where: dict[str, Any], matching: bool
) -> tuple[Table, list[str]]:
    """The table by reading every cell: of a study that has not ended, or without Parquet."""
    from invertigo.studies.conclusion import conclude
    from invertigo.studies.slices import axes_of
    from invertigo.studies.table import build_table

    found = conclude(study, matching=matching)
    rows = rows if rows or columns else list(axes_of(found.results)) or ["seed"]
    return build_table(found.results, rows=rows, columns=columns, value=value, where=where), found.notes()


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
