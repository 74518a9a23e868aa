"""What a cell rests on, by content: code, data, weights and the versions of what computes."""

from __future__ import annotations

import functools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from invertigo.studies.data_prints import READ, data_print
from invertigo.studies.house import house_prints
from invertigo.studies.identity import canonical
from invertigo.studies.prints import stamped_digest, tree_print
from invertigo.studies.sources import OURS, module_print, reach
from invertigo.types.errors import InvertigoError, MissingDataError, UnknownNameError

MISSING = "missing"
NOBODY = f"unknown {uuid.uuid4().hex[:12]}"
"""Of code without a file: nobody can tell whether it is still the same, so no other process reuses its cells."""
Once = Callable[[str, Any, Callable[[Any], Any]], Any]
"""`once(what, value, read)` is `read(value)`, remembered while a study is expanded."""


def contents(config: Mapping[str, Any], once: Once, *, checked: bool = False) -> dict[str, str]:
    """Fingerprint by name of everything that a cell (or a victim) with `config` rests on.

    `invertigo`, `torch` and other libraries; `module NAME` of a plug-in; `factory NAME` of the user's own model;
    `data {...}` of the files of a set; `file PATH` of any file that a setting names. A name says how to take the
    fingerprint again, see `present`.

    Raises: with `checked`, for data that cannot be read and for a factory that is not there.
    """
    found = dict(once("house", None, lambda _: house_prints()))
    modules = once("modules", _naming(config), _modules)
    found |= {f"module {name}": once("module", name, _module) for name in modules}
    if (factory := config["model"].get("factory")) is not None:
        name = factory.partition(":")[0]
        found[f"factory {name}"] = once("factory", name, functools.partial(_factory, checked=checked))
    section = {name: config["data"].get(name) for name in READ}
    found[f"data {canonical(section)}"] = once("data", section, functools.partial(_data, checked=checked))
    return found | {f"file {path}": once("file", path, _file) for path in once("files", _naming(config), _files)}


def present(name: str, house: Mapping[str, str], *, load: bool = False) -> str | None:
    """The fingerprint called `name` as it is now; None where it cannot be taken here without loading data.

    `house` are those of Invertigo and its libraries, see `house_prints`.
    """
    kind, _, rest = name.partition(" ")
    if kind == "data":
        try:
            return data_print(json.loads(rest), load=load)
        except InvertigoError:
            return None
    readers = {"module": _module, "factory": _factory, "file": _file}
    if kind in readers:
        found = readers[kind](rest)
        return None if found in (NOBODY, MISSING) else found
    return house.get(name)


def _naming(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a configuration that name things."""
    return {name: config.get(name) for name in ("attacks", "model", "defense", "guarded", "data")}


def _modules(config: Mapping[str, Any]) -> list[str]:
    """Other people's modules behind the attacks, the model, the data, the defense and the guards."""
    from invertigo import attacks, data, defenses, guards, models

    named: list[Any] = [attacks.registry[one["name"]] for one in config["attacks"] or []]
    if config["model"].get("name"):
        named.append(models.registry[config["model"]["name"]])
    if config["data"]["name"] in data.registry:
        named.append(data.registry[config["data"]["name"]])
    if config["defense"] is not None:
        wanted = config["defense"]
        named.append(defenses.registry[wanted if isinstance(wanted, str) else wanted["name"]])
    if config["guarded"] is not None:
        wanted = [one if isinstance(one, str) else one["name"] for one in config["guarded"]["attacks"]]
        named += [attacks.registry[name] for name in wanted] + [guards.registry[name] for name in guards.registry]
    found = {module for entry in named for module in _homes(entry)}
    return sorted(name for name in found if name.partition(".")[0] not in (OURS, "builtins", "functools"))


def _homes(entry: Any, depth: int = 3) -> Iterator[str]:
    """The modules that an entry of a registry comes from: its own, and those of the functions it holds."""
    if isinstance(entry, functools.partial):
        parts: list[Any] = [entry.func, *entry.args, *entry.keywords.values()]
    elif isinstance(entry, type) or hasattr(entry, "__code__"):
        yield entry.__module__  # which imports the modules of its bases
        parts = [entry.__wrapped__] if hasattr(entry, "__wrapped__") else []
    else:
        yield type(entry).__module__
        parts = list(getattr(entry, "__dict__", {}).values())
    for part in parts if depth else ():
        if callable(part):
            yield from _homes(part, depth - 1)


def _module(name: str) -> str:
    return NOBODY if reach(name).unknown else module_print(name)


def _factory(name: str, checked: bool = False) -> str:
    if not reach(name, here=True).unknown:
        return module_print(name, here=True)
    if checked:
        raise UnknownNameError(
            f"There is no module '{name}', which model.factory names. Run from its folder, or install it."
        )
    return MISSING


def _data(section: Mapping[str, Any], checked: bool = False) -> str:
    try:
        return data_print(section) or MISSING
    except MissingDataError:
        if checked:
            raise
        return MISSING


def _files(config: Any) -> list[str]:
    """Texts in a configuration that name a file or a folder: weights, checkpoints, tables; those of a set apart."""
    settings = {**config, "data": {name: value for name, value in config["data"].items() if name != "name"}}
    return sorted({text for text in _texts(settings) if _is_there(text)})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _texts(part)


def _is_there(text: str) -> bool:
    if not (os.sep in text or "." in text) or len(text) > 1000 or "\0" in text:
        return False
    try:
        path = Path(text).expanduser()
        return path.is_file() or (os.sep in text and path.is_dir())
    except (OSError, RuntimeError):
        return False


def _file(text: str) -> str:
    path = Path(text).expanduser()
    if path.is_dir():
        return tree_print(path, (file for file in path.rglob("*") if file.is_file()))
    return stamped_digest(path) if path.is_file() else MISSING
