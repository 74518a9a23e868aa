"""A table of a study as text: Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from invertigo.studies.table import Entry, Table

MISSING = "–"
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "−": "$-$", "±": r"$\pm$",
}  # fmt: skip


def _shown(entry: Entry | None) -> str:
    if entry is None:
        return MISSING
    digits = _digits(entry)
    text = f"{entry.mean:.{digits}f}" + ("" if entry.half is None else f" ± {entry.half:.{digits}f}")
    return text.replace("-", "−") + ("*" if entry.lacking else "")


def _digits(entry: Entry) -> int:
    """Decimals that carry information: two digits of the half-interval, or three of the mean."""
    if entry.half:
        return min(6, max(0, 1 - math.floor(math.log10(entry.half))))
    return min(6, max(0, 2 - math.floor(math.log10(abs(entry.mean))))) if entry.mean else 0


def _heads(table: Table) -> list[str]:
    """Column headings; a table without column axes has one, its value."""
    named = [", ".join(key) for key in table.columns]
    return [head or table.value for head in named]


def _cells(table: Table) -> list[list[str]]:
    places = range(len(table.columns))
    return [[*row, *(_shown(table.entry(i, j)) for j in places)] for i, row in enumerate(table.rows)]


def _markdown(table: Table) -> str:
    rows = [[*table.row_axes, *_heads(table)], *_cells(table)]
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lead = len(table.row_axes)

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i < lead else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i < lead else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(rows[0]), f"| {' | '.join(rule)} |", *map(line, rows[1:])])


def _csv(table: Table) -> str:
    """One line for each place, in full precision, since a cell of a wide table could hold one number only."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*table.row_axes, *table.column_axes, table.value, "half_interval", "cells", "lacking"])
    for i, row in enumerate(table.rows):
        for j, column in enumerate(table.columns):
            entry = table.entry(i, j)
            mean, half = (None, None) if entry is None else (entry.mean, entry.half)
            counts = [0, ""] if entry is None else [entry.n, entry.lacking]
            writer.writerow(
                [*map(_inert, (*row, *column)), *("" if x is None else repr(x) for x in (mean, half)), *counts]
            )
    return text.getvalue().removesuffix("\n")


def _inert(label: Any) -> Any:
    """A label that a spreadsheet does not take for a formula: an apostrophe goes before one that could be."""
    text = str(label)
    formula = text[:1] in "=+-@\t\r" and text != ""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if formula else label
    return label


def _latex(table: Table) -> str:
    lead = len(table.row_axes)
    lines = [rf"\begin{{tabular}}{{{'l' * lead}{'r' * len(table.columns)}}}", r"\toprule"]
    lines += [_latex_line([*table.row_axes, *_heads(table)]), r"\midrule"]
    lines += [_latex_line(row) for row in _cells(table)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join("".join(_ESCAPES.get(c, c) for c in cell) for cell in cells) + r" \\"


FORMATS: Mapping[str, Callable[[Table], str]] = {"markdown": _markdown, "csv": _csv, "latex": _latex}
