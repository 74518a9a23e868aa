"""`invertigo frontier`: what each defense hides from whoever knows it, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from invertigo.studies.frontier import Frontier


def frontier(
    scenario: Annotated[
        str, typer.Argument(help="A scenario by name (`invertigo list scenarios`), or a .yaml file.")
    ] = "demo",
    defenses: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Names from `invertigo list defenses`, with commas; also secure_aggregation, "
            "local_steps, batch_size. Default: all.",
        ),
    ] = "all",
    points: Annotated[int, typer.Option(min=1, help="Strengths of each defense.")] = 3,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a key of the scenario, e.g. utility.rounds=200."),
    ] = None,
    iterations: Annotated[
        int, typer.Option(min=1, help="Of the attack, where the scenario leaves the attacks to the audit.")
    ] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, each with other examples.")] = 1,
    out: Annotated[
        str | None, typer.Option(metavar="DIR|URL", help="Where it goes. Default: invertigo-frontier/SCENARIO.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes on this machine.")] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed points again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would run, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")] = False,
) -> None:
    """Compare defenses on one client: privacy against accuracy.

    Run it again to resume it. Exit codes: 0 done, 1 some points failed, 2 usage or a full disk, 130 interrupted.
    """
    from invertigo.auditing.scenario import load_scenario
    from invertigo.cli.study import describe, finish
    from invertigo.cli.study_progress import watching
    from invertigo.studies.cost import cost_of
    from invertigo.studies.expansion import expand
    from invertigo.studies.frontier_study import frontier_study
    from invertigo.studies.run import run_study
    from invertigo.studies.store import Store

    names = None if defenses == "all" else [name.strip() for name in defenses.split(",") if name.strip()]
    study = frontier_study(
        load_scenario(scenario, set_ or []), names, points=points, iterations=iterations, seeds=range(seeds)
    )
    where = out or str(Path("invertigo-frontier") / Path(scenario).stem)
    if dry_run:
        typer.echo(describe(study, None, cost_of(expand(study), Store(where))))
        return
    with watching(quiet=quiet) as watcher:
        found = run_study(study, where, jobs=jobs, retry_failed=retry_failed, watcher=watcher)
    if not found.interrupted:
        _keep(where, quiet)
    finish(found, where, quiet=quiet)


def _keep(where: str, quiet: bool) -> None:
    """Write `frontier.json`, and print the table."""
    from invertigo.studies.conclusion import conclude
    from invertigo.studies.frontier import frontier_of, write_frontier

    concluded = conclude(where)
    drawn = frontier_of(concluded.results)
    if drawn is None:
        return
    write_frontier(concluded.store, concluded.results, drawn)
    if not quiet:
        _print(drawn)


def _print(drawn: Frontier) -> None:
    from rich.console import Console

    from invertigo.report.frontier_table import frontier_table

    console = Console()
    console.print(frontier_table(drawn))
    for rung in drawn.rungs:
        console.print(f"Cheapest that holds on rung {rung}: {drawn.sentence(rung) or 'none was shown to'}.")
    if not drawn.learned:
        console.print("Even without a defense the model learned nothing: raise utility.rounds or the learning rate.")
    if drawn.dominated:
        console.print(f"Dominated at every strength tried: {', '.join(drawn.dominated)}.")
