"""`invertigo guard`: look at a model that a server sent, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from invertigo.types import GuardVerdict

LOOKS = ("zero_head", "lora", "pruned", "tied", "dirac", "quantised")


def guard(
    model: Annotated[Path, typer.Argument(help="The received model, as safetensors.")],
    previous: Annotated[
        list[Path] | None, typer.Option(help="An earlier model of the same federation; repeat it, oldest first.")
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODULE:FACTORY", help="What makes the client's model. Without, layers are guessed."
        ),
    ] = None,
    fingerprint: Annotated[str | None, typer.Option(help="SHA-256 that was announced for this model.")] = None,
    declare: Annotated[
        list[str] | None, typer.Option(metavar="LOOK", help=f"An honest look-alike: {', '.join(LOOKS)}.")
    ] = None,
    initial: Annotated[
        bool, typer.Option("--initial", help="This is the first model: hold it against the factory's initialisation.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Inspect a model file for what a malicious server plants.

    Only tests that need no private data are made; those on loss, gradients and the update need a client.

    Exit codes: 0 nothing found, 1 warning or worse, 2 usage or a file that cannot be read.
    """
    from invertigo.guards.inspector import Inspector
    from invertigo.guards.reading import read_model
    from invertigo.guards.standing import inspect_file
    from invertigo.types import Declared

    looks = _looks(declare or [])
    received, earlier = read_model(model), [read_model(path) for path in previous or []]
    task = None if architecture is None else _task(architecture)
    declared = Declared(fingerprint=fingerprint, looks=looks, initial=_initial(architecture, initial))
    verdict = inspect_file(received, task, previous=earlier, inspector=Inspector(declared=declared))
    _tell(verdict, str(model), json=json)
    raise typer.Exit(0 if verdict.decision == "pass" else 1)


def _looks(declared: list[str]) -> frozenset:
    from invertigo.types import ConfigurationError, did_you_mean

    for look in declared:
        if look not in LOOKS:
            raise ConfigurationError(
                f"--declare {look!r} is not known.{did_you_mean(look, LOOKS)} Known: {', '.join(LOOKS)}."
            )
    return frozenset(declared)


def _task(architecture: str):
    from torch.nn.functional import cross_entropy

    from invertigo.domains import Images
    from invertigo.models import load_factory
    from invertigo.types import Task

    return Task(load_factory(architecture), cross_entropy, Images(shape=(1, 1, 1)))


def _initial(architecture: str | None, wanted: bool):
    from invertigo.models import load_factory
    from invertigo.models.building import weights_drawn_by
    from invertigo.types import ConfigurationError

    if not wanted:
        return None
    if architecture is None:
        raise ConfigurationError("--initial compares with models that --model package.module:factory draws; give it.")

    def draw(generator):
        with weights_drawn_by(generator):
            return load_factory(architecture)

    return draw


def _tell(verdict: GuardVerdict, name: str, *, json: bool) -> None:
    if json:
        import json as json_format

        typer.echo(json_format.dumps({"model": name, **verdict.as_dict()}, indent=1))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from invertigo.types.printable import printable

    console = Console()
    style = {"pass": "green", "warn": "yellow", "block": "bold red"}[verdict.decision]
    console.print(
        Text(verdict.decision.upper(), style=style), Text(printable(name)), f"sha256:{verdict.fingerprint[:16]}…"
    )
    if not verdict.findings:
        console.print(f"Nothing improbable under an honest server in {len(verdict.observed)} tests.")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("rule", "layer", "p", "what was found"):
            table.add_column(title, no_wrap=title in ("rule", "p"))
        for found in verdict.findings:
            p = "–" if found.p_value is None else f"{found.p_value:.0e}"
            table.add_row(found.rule, Text(printable(found.layer or "")), p, Text(found.message))
        console.print(table)
        console.print(Text(verdict.findings[0].action))
    console.print(Text(f"Not looked at: {', '.join(verdict.skipped)}.", style="dim") if verdict.skipped else "")
