"""The privacy-utility frontier as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from invertigo.report.frontier import frontier_view
from invertigo.studies.frontier import Frontier


def frontier_table(frontier: Frontier) -> Table:
    """Every point in a line: scores of both adversaries, what was rebuilt, what it costs, and what dominates it."""
    view = frontier_view(frontier)
    unit = f" {frontier.unit}" if frontier.unit else ""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"Mean {frontier.metric}{unit}", title_justify="left")
    table.add_column("defense")
    for column in view.columns if view else ():
        table.add_column(column, justify="right", no_wrap=column != "rebuilt")
    for row in view.rows if view else ():
        name = Text(row.name)
        name.append(f" {row.setting}" if row.setting else "", style="dim")
        style = "bold" if row.bare else "dim" if row.dominated_by else ""
        table.add_row(name, *(text for _, text in row.cells), style=style)
    return table
