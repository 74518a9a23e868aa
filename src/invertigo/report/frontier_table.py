"""The privacy-utility frontier as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from invertigo.report.frontier import frontier_view
from invertigo.studies.frontier import Frontier

WIDE = ("client time",)
"""Columns that the page has room for, and 80 characters have not."""


def frontier_table(frontier: Frontier) -> Table:
    """Every point in a line: scores of both adversaries, what was rebuilt, and what it costs.

    Dominated points are dim; `raw` is the share of releases that are the raw update.
    """
    view = frontier_view(frontier)
    unit = f" {frontier.unit}" if frontier.unit else ""
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title=f"Mean {frontier.metric}{unit}", title_justify="left"
    )
    table.add_column("defense", overflow="fold", min_width=18)
    shown = [column for column in (view.columns if view else ()) if column not in WIDE]
    for column in shown:
        table.add_column("raw" if column == "undefended" else column, justify="right", no_wrap=True)
    for row in view.rows if view else ():
        name = Text(row.name)
        name.append(f" {row.setting}" if row.setting else "", style="dim")
        style = "bold" if row.bare else "dim" if row.dominated_by else ""
        cells = [text.partition(" (")[0] for column, text in row.cells if column in shown]
        table.add_row(name, *cells, style=style)
    return table
