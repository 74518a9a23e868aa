"""`invertigo check`: a gate for continuous integration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from invertigo.report.gate import Finding, Gate


class Format(StrEnum):
    """How the answer is printed."""

    text = "text"
    json = "json"
    github = "github"


def check(
    result: Annotated[Path, typer.Argument(help="A folder of `invertigo audit`, or a result.json.")],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMIT", help="`metric[.worst|best|mean|median] op number`, e.g. 'psnr.worst > 20'."),
    ] = None,
    level: Annotated[int | None, typer.Option(min=0, max=5, help="Ignore attacks above this rung.")] = None,
    require_controls: Annotated[
        bool,
        typer.Option(
            "--require-controls/--no-require-controls",
            help="Believe no absence without its controls.",
        ),
    ] = True,
    format: Annotated[Format, typer.Option(help="text, json, or annotations for GitHub.")] = Format.text,
) -> None:
    """Gate a build on limits.

    Without --fail-if, a result fails when anything was rebuilt (recovered > 0).

    A result may hold several audits (companions); each is held against the limits by itself and named.

    Exit codes: 1 when any audit is beyond a limit, else 3 when any is inconclusive, else 0; 2 for a usage error. What
    was rebuilt counts whatever else is in doubt; inconclusive never passes.
    """
    from invertigo.report.files import read_records
    from invertigo.report.gate import check as hold
    from invertigo.report.gate import exit_code_of

    records = read_records(result)
    gates = [hold(record, fail_if or [], level=level, require_controls=require_controls) for record in records]
    typer.echo(_PRINTERS[format](gates))
    raise typer.Exit(exit_code_of(gates))


def _text(gates: Sequence[Gate]) -> str:
    lines = []
    for gate in gates:
        lines.append(f"{gate.status.upper()}  {gate.title}")
        lines += [f"  {'exceeded' if f.exceeded else 'within  '}  {_say(f)}" for f in gate.findings]
        lines += [f"  inconclusive: {doubt}" for doubt in gate.doubts]
    return "\n".join(lines)


def _json(gates: Sequence[Gate]) -> str:
    return json.dumps(
        [
            {
                "title": gate.title,
                "status": gate.status,
                "exit_code": gate.exit_code,
                "limits": [
                    {"limit": str(f.limit), "value": _plain(f.value), "exceeded": f.exceeded} for f in gate.findings
                ],
                "doubts": list(gate.doubts),
            }
            for gate in gates
        ],
        indent=1,
    )


def _github(gates: Sequence[Gate]) -> str:
    lines = []
    for gate in gates:
        lines += [
            f"::error title=Invertigo::{_escape(f'{gate.title}: {_say(f)}')}" for f in gate.findings if f.exceeded
        ]
        lines += [
            f"::error title=Invertigo (inconclusive)::{_escape(f'{gate.title}: {doubt}')}" for doubt in gate.doubts
        ]
        if gate.status == "within":
            said = "; ".join(map(_say, gate.findings))
            lines.append(f"::notice title=Invertigo::{_escape(f'{gate.title}: {said}')}")
    return "\n".join(lines)


_PRINTERS = {Format.text: _text, Format.json: _json, Format.github: _github}


def _say(finding: Finding) -> str:
    value = "unknown" if finding.value is None else f"{finding.value:.4g}"
    return f"{finding.limit}: measured {value}"


def _plain(value: float | None) -> float | str | None:
    return str(value) if value in (float("inf"), float("-inf")) else value


def _escape(text: str) -> str:
    """GitHub reads a workflow command up to the end of the line, with these three characters encoded."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
