"""`invertigo audit`: run a scenario and say what leaks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invertigo.cli.errors import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invertigo.auditing import Audit
    from invertigo.auditing.record import AuditRecord


def audit(
    scenario: Annotated[
        str,
        typer.Argument(
            help="A scenario by name (`invertigo list scenarios`), a .yaml file, or a folder of recorded Flower rounds."
        ),
    ] = ("demo"),
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a key of the scenario, e.g. local.mode=eval."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for the attacks: 60s, 5m, 1h. Default: the scenario's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random. Default: the scenario's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html, result.json and the tensors.")] = Path(
        "invertigo-report"
    ),
    include_originals: Annotated[
        bool | None,
        typer.Option(help="Show and store the private originals. Default: only those of bundled public data."),
    ] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Scores only: no picture and no tensor is written.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables; files are written.")] = False,
    round: Annotated[int | None, typer.Option(help="Of recorded rounds: only this one.")] = None,
    node: Annotated[int | None, typer.Option(help="Of recorded rounds: only this client.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Of recorded rounds: a scenario with the clients' model and kind of data."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="Of one recorded exchange: the private batch, as .safetensors. Nothing is scored without."),
    ] = None,
    said: Annotated[
        list[str] | None,
        typer.Option(help="Of recorded rounds: what is said to be on: encryption, secure_aggregation."),
    ] = None,
) -> None:
    """Measure what an adversary can rebuild.

    Ctrl-C keeps and scores what the running attack has; pressed again, it stops at once. Exit codes: 0 done, 2 usage,
    130 interrupted (the report is written all the same).
    """
    from invertigo.auditing.scenario import load_scenario, scenario_names

    if Path(scenario).is_dir() and scenario not in scenario_names():  # a folder may be called as a scenario is
        from invertigo.cli.rounds import audit_rounds

        found = audit_rounds(
            Path(scenario), round=round, node=node, task=task, overrides=set_ or [], truth=truth, said=said or [],
            budget=budget, seed=seed, out=out, silent=quiet or json,
        )  # fmt: skip
        _keep(found, out, include_originals, redact, json=json, quiet=quiet)
        return
    if (round, node, task, truth, said) != (None, None, None, None, None):
        raise typer.BadParameter(
            f"--round, --node, --task, --truth and --said go with a folder of recorded rounds; '{scenario}' is none."
        )
    from invertigo import report
    from invertigo.auditing.budget import parse_budget
    from invertigo.cli.progress import watching

    loaded = load_scenario(scenario, set_ or [])
    if budget is not None:
        parse_budget(budget)
    report.begin(out)
    from invertigo.auditing import audit as run

    with watching(quiet=quiet or json) as progress:
        found = run(
            loaded,
            budget=budget,
            seed=seed,
            progress=progress,
            title=loaded.title or Path(scenario).stem,
            command=_command(scenario, set_ or [], budget, seed),
        )
    _keep(found, out, include_originals, redact, json=json, quiet=quiet)


def _keep(
    found: Audit | Sequence[Audit],
    out: Path,
    include_originals: bool | None,
    redact: bool,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Write files and tables, both of them or what can be."""
    from invertigo import report
    from invertigo.report.files import together
    from invertigo.types.errors import OutputError

    try:
        page = report.save(found, out, include_originals=include_originals, redact=redact)
    except OutputError:
        _tell(found, None, json=json, quiet=False)  # a disk that is full does not take the answer with it
        raise
    _tell(found, page, json=json, quiet=quiet)
    if any(flag.code == "interrupted" for one in together(found) for flag in one.record.flags):
        raise typer.Exit(INTERRUPTED)


def _command(scenario: str, overrides: list[str], budget: str | None, seed: int | None) -> str:
    """What repeats this audit, ready to paste into a shell."""
    words = ["invertigo", "audit", scenario, *(word for override in overrides for word in ("--set", override))]
    words += ["--budget", budget] if budget is not None else []
    return shlex.join(words + (["--seed", str(seed)] if seed is not None else []))


def _one_object(records: Sequence[AuditRecord]) -> str:
    """The record of the scenario, with those of its `compare` under `companions`; always one JSON object."""
    first, *others = (record.model_dump_json() for record in records)
    return f'{first.rstrip()[:-1]},"companions":[{",".join(others)}]}}'


def _tell(found: Audit | Sequence[Audit], page: Path | None, *, json: bool, quiet: bool) -> None:
    from rich.console import Console

    from invertigo import report
    from invertigo.report.files import together

    records = [one.record for one in together(found)]
    if json:
        typer.echo(_one_object(records))
        return
    if not quiet:
        for record in records:
            report.render(record, Console())
    if page is not None:
        typer.echo(page)
