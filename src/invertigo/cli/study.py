"""`invertigo study`: run a grid of audits, or go on with one."""

from __future__ import annotations

import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from invertigo.studies.cost import Cost
    from invertigo.studies.run import Summary
    from invertigo.studies.spec import Study

FAILED, INTERRUPTED = 1, 130


class Scale(StrEnum):
    """The presets that a study may have."""

    smoke = "smoke"
    cpu = "cpu"
    paper = "paper"


class StudyCommand(TyperCommand):
    """Lets `--ray` stand alone: what follows is an address only if it looks like one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `start` behind a `--ray` without an address."""
        full: list[str] = []
        for position, word in enumerate(args):
            full.append(word)
            following = args[position + 1] if position + 1 < len(args) else ""
            if word == "--ray" and not (":" in following or following in ("auto", "local")):
                full.append(_START)
        return super().parse_args(ctx, full)


_START = "start"


def study(
    study: Annotated[str, typer.Argument(help="A study by name (`invertigo list studies`), or a .yaml file.")],
    preset: Annotated[Scale | None, typer.Option(help="Its scale. Default: the study as written.")] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="Where the cells go. Default: invertigo-studies/NAME[-PRESET]."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes on this machine.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="[ADDRESS]", help="Run on Ray: start or join a cluster, or join the one at ADDRESS."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I of N, the same on all machines.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would run, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run a study; run it again to resume it.

    Exit codes: 0 all cells are done, 1 some failed, 2 usage or a full disk, 130 interrupted.
    """
    from invertigo.studies.cost import cost_of
    from invertigo.studies.expansion import expand, shard_of
    from invertigo.studies.run import parse_shard, run_study
    from invertigo.studies.spec import load_study
    from invertigo.studies.store import Store

    loaded = load_study(study)
    part = parse_shard(shard) if shard else None
    scale = preset.value if preset else None
    where = out or str(Path("invertigo-studies") / (f"{loaded.name}-{scale}" if scale else loaded.name))
    if dry_run:
        typer.echo(describe(loaded, scale, cost_of(shard_of(expand(loaded, scale), part), Store(where))))
        return
    from invertigo.cli.study_progress import watching

    with watching(quiet=quiet) as watcher:
        found = run_study(
            loaded,
            where,
            preset=scale,
            jobs=jobs,
            ray=True if ray == _START else ray or False,
            shard=part,
            retry_failed=retry_failed,
            watcher=watcher,
        )
    finish(found, where, quiet=quiet, part=part)


def finish(found: Summary, where: str, *, quiet: bool, part: tuple[int, int] | None = None) -> None:
    """Write what can be concluded, and say how the run ended. Raises: Exit with the code of the ending."""
    if part is not None and not found.interrupted:
        from invertigo.studies.conclusion import write_part

        write_part(where, part)
        typer.echo(f"invertigo: part {part[0]} of {part[1]}; to conclude all parts: invertigo report {where}", err=True)
    elif not found.interrupted:
        _conclude(where, quiet)
    _tell(found, where)


def _conclude(where: str, quiet: bool) -> None:
    """Write claims, results and, for a local folder, the page; and say what became of the claims."""
    from invertigo.studies.conclusion import conclude, write_conclusion

    concluded = conclude(where)
    if concluded.empty:
        return
    write_conclusion(concluded)
    from invertigo.report.study import keep_page

    keep_page(concluded)
    for claim in () if quiet else concluded.claims:
        figures = "" if claim.estimate is None else f"  {claim.estimate:.3g} ({claim.low:.3g} to {claim.high:.3g})"
        typer.echo(f"{claim.status:<13}  {claim.sentence}{figures}", err=True)


def describe(study: Study, preset: str | None, cost: Cost) -> str:
    """A study as `show` and `--dry-run` print it: its axes, its cells and what they take."""
    from invertigo.report.numbers import duration
    from invertigo.studies.axes import points

    at = study.at(preset)
    lines = [f"{study.name} (study)", *([f"  {study.title}"] if study.title else [])]
    lines += [f"  paper: {study.paper}"] if study.paper else []
    lines += [f"  preset: {preset or 'none'} (it has {', '.join(study.presets) or 'none'})", "  axes:"]
    lines += [f"    {name}: {', '.join(str(p.label) for p in points(name, items))}" for name, items in at.axes.items()]
    lines += [f"    {' and '.join(names)} move together" for names in at.zip]
    lines += [f"    seed: {', '.join(map(str, at.seeds))}"]
    lines += [f"  private examples at each point and seed: {at.examples}"] if at.examples else []
    lines += [f"  claims: {len(study.claims)}", f"  cells: {cost.cells}"]
    if cost.done or cost.failed or cost.damaged:
        lines.append(f"    done {cost.done}, failed {cost.failed}, damaged {cost.damaged}, to run {cost.left}")
    lines.append(f"  to do: {cost.victims} models to train, {cost.iterations:,} iterations of attacks")
    if cost.seconds is not None:
        lines.append(f"  time left on one worker, by the cells done here: {duration(cost.seconds)}")
    return "\n".join(lines)


def _tell(found: Summary, where: str) -> None:
    ended = f"{found.done + found.reused} of {found.total} cells are done"
    if found.interrupted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to stop but this process, which is ending
        typer.echo(f"invertigo: interrupted; {ended}, whole, in {where}. To resume: {_same_command()}", err=True)
        raise typer.Exit(INTERRUPTED)
    if found.failed:
        typer.echo(f"invertigo: {ended}; {len(found.failed)} failed:", err=True)
        for key, error in list(found.failed.items())[:5]:
            typer.echo(f"  {key}  {error}", err=True)
        typer.echo(f"Their tracebacks: {where}/cells/KEY/log.txt. To run them again: --retry-failed", err=True)
    typer.echo(where)
    if found.failed:
        raise typer.Exit(FAILED)


def _same_command() -> str:
    return shlex.join(["invertigo", *sys.argv[1:]])
