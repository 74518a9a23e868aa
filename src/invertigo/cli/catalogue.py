"""`invertigo list` and `invertigo show`: what there is, with its paper, its requirements and its settings."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json as json_format
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any

import typer


class Kind(enum.StrEnum):
    """What can be listed."""

    attacks = "attacks"
    defenses = "defenses"
    guards = "guards"
    domains = "domains"
    data = "data"
    models = "models"
    scenarios = "scenarios"
    studies = "studies"


@dataclass(frozen=True)
class Entry:
    """One registered thing, as the catalogue shows it."""

    name: str
    kind: str
    summary: str
    paper: str = ""
    requires: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List what there is of one kind."""
    entries = _entries(kind)
    if json:
        typer.echo(json_format.dumps([dataclasses.asdict(entry) for entry in entries], indent=1))
        return
    if not entries:
        typer.echo(f"No {kind.value} are registered.")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    for entry in entries:
        paper = Text(f"  {entry.paper}", style="dim") if entry.paper else Text()
        table.add_row(entry.name, Text(entry.summary).append(paper))
    Console().print(table)


def show(
    name: Annotated[str, typer.Argument(help="A name from `invertigo list`, or a study's .yaml file.")],
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON Schema for editors: `invertigo show --schema study`.")
    ] = False,
) -> None:
    """Show what something is and takes.

    A scenario is printed with every key written out; a study with its axes, cells and cost; anything else with its
    paper, requirements and settings.
    """
    from invertigo.auditing.scenario import load_scenario, scenario_names

    if schema:
        typer.echo(_schema(name))
        return
    if _is_study(name):
        same = [_page(entry) for entry in _called(name)]  # a study may be named after what it examines
        typer.echo("\n\n".join([*same, _study_page(name)]))
        return
    found = [] if name in scenario_names() else _find(name)
    if not found:
        import yaml

        typer.echo(yaml.safe_dump(load_scenario(name).resolved(), sort_keys=False, allow_unicode=True).rstrip())
        return
    typer.echo("\n\n".join(map(_page, found)))


def _schema(name: str) -> str:
    from invertigo.auditing.scenario import Scenario
    from invertigo.studies.schema import schema_text
    from invertigo.types.errors import UnknownNameError, did_you_mean

    written = {
        "study": schema_text,
        "scenario": lambda: json_format.dumps(Scenario.model_json_schema(), indent=1, ensure_ascii=False),
    }
    if name not in written:
        raise UnknownNameError(
            f"There is no schema of '{name}'.{did_you_mean(name, written)} Known: {', '.join(written)}."
        )
    return written[name]().rstrip()


def _is_study(name: str) -> bool:
    """A packaged study, or a file that has what a scenario never has: a name of its own and axes."""
    from pathlib import Path

    from invertigo.studies.spec import study_names
    from invertigo.types.errors import CorruptFileError
    from invertigo.types.untrusted import read_text, read_yaml

    if name in study_names():
        return True
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    try:
        held = read_yaml(read_text(path))
    except (CorruptFileError, ValueError):
        return False
    return isinstance(held, Mapping) and bool({"axes", "base", "claims"} & set(held))


def _study_page(name: str) -> str:
    from invertigo.cli.study import describe
    from invertigo.studies.cost import cost_of
    from invertigo.studies.expansion import expand
    from invertigo.studies.spec import load_study

    study = load_study(name)
    return "\n\n".join(describe(study, p, cost_of(expand(study, p))) for p in (None, *study.presets))


def _find(name: str) -> list[Entry]:
    """Every entry called `name`; empty for a scenario file. Raises: UnknownNameError with the nearest name."""
    from pathlib import Path

    from invertigo.auditing.scenario import scenario_names
    from invertigo.studies.spec import study_names
    from invertigo.types.errors import UnknownNameError, did_you_mean

    if Path(name).suffix in (".yaml", ".yml"):
        return []
    found = _called(name)
    if not found:
        rooms = _rooms()
        known = [*scenario_names(), *study_names(), *(other for room in rooms.values() for other in room)]
        raise UnknownNameError(
            f"There is no '{name}' among attacks, defenses, guards, domains, data, models, scenarios and studies."
            f"{did_you_mean(name, known)} `invertigo list KIND` lists them."
        )
    return found


def _called(name: str) -> list[Entry]:
    return [_describe(kind, name, room[name]) for kind, room in _rooms().items() if name in room]


def _rooms() -> dict[Kind, Any]:
    return {kind: _registry(kind) for kind in Kind if kind not in (Kind.scenarios, Kind.studies)}


def _entries(kind: Kind) -> list[Entry]:
    if kind is Kind.scenarios:
        from invertigo.auditing.scenario import load_scenario, scenario_names

        scenarios = {name: load_scenario(name) for name in scenario_names()}
        return [Entry(name, kind.value, one.title or one.description) for name, one in scenarios.items()]
    if kind is Kind.studies:
        from invertigo.studies.spec import load_study, study_names

        studies = {name: load_study(name) for name in study_names()}
        return [Entry(name, kind.value, one.title or one.description, one.paper) for name, one in studies.items()]
    room = _registry(kind)
    return [_describe(kind, name, room[name]) for name in room]


def _registry(kind: Kind) -> Any:
    """The registry of a room; an empty one for a room that has nothing registered yet."""
    from invertigo.types.registry import Registry

    module = import_module(f"invertigo.{kind.value}")
    return getattr(module, "registry", None) or Registry(kind.value, kind.value.removesuffix("s"))


def _describe(kind: Kind, name: str, entry: Any) -> Entry:
    from invertigo.types.paper import Paper

    paper = getattr(entry, "paper", None)
    summary = getattr(entry, "summary", None)
    if not isinstance(summary, str):
        summary = (inspect.getdoc(entry) or "").partition("\n\n")[0].replace("\n", " ")
    requires = sorted(str(getattr(r, "value", r)) for r in getattr(entry, "requires", ()) or ())
    return Entry(
        name=name,
        kind=kind.value,
        summary=summary,
        paper=paper.short() if isinstance(paper, Paper) else "",
        requires=tuple(requires),
        facts=_facts(entry),
        settings=_settings(entry),
    )


def _facts(entry: Any) -> dict[str, str]:
    """What an entry states about itself."""
    stated = ("exact", "domains", "strength", "strengths", "splits", "licence", "bundled")
    found = {name: getattr(entry, name, None) for name in stated}
    return {name: _plain(value) for name, value in found.items() if value is not None and not callable(value)}


def _settings(entry: Any) -> dict[str, str]:
    """Names and defaults of what can be set; nothing for an object that is complete as it is."""
    if not callable(entry):
        return {}
    try:
        parameters = inspect.signature(entry).parameters.values()
    except (TypeError, ValueError):
        return {}
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        p.name: "required" if p.default is inspect.Parameter.empty else _default(entry, p)
        for p in parameters
        if p.kind not in variadic
    }


def _default(entry: Any, parameter: inspect.Parameter) -> str:
    """A default as text; that of a dataclass field with a factory is made once to be shown."""
    fields = {f.name: f for f in dataclasses.fields(entry)} if dataclasses.is_dataclass(entry) else {}
    made = fields.get(parameter.name)
    if made is not None and made.default_factory is not dataclasses.MISSING:
        return _plain(made.default_factory())
    return _plain(parameter.default)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(sorted(map(_plain, value)) if isinstance(value, (set, frozenset)) else map(_plain, value))
    return str(value.value if isinstance(value, enum.Enum) else value)


def _page(entry: Entry) -> str:
    kind = entry.kind if entry.kind == "data" else entry.kind.removesuffix("s")
    lines = [f"{entry.name} ({kind})", f"  {entry.summary}"]
    lines += [f"  paper: {entry.paper}"] * bool(entry.paper)
    lines += ["  the adversary must:", *(f"    {need}" for need in entry.requires)] if entry.requires else []
    lines += [f"  {name}: {value}" for name, value in entry.facts.items()]
    if entry.settings:
        width = max(map(len, entry.settings))
        lines += ["  settings:", *(f"    {name:<{width}}  {value}" for name, value in entry.settings.items())]
    return "\n".join(lines)
