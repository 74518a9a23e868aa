"""Fingerprints of data sets: of every file that loading one reads, found out by loading it once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invertigo.studies.identity import canonical
from invertigo.studies.prints import data_places, file_digest, keep, print_of, recall, stamp

if TYPE_CHECKING:
    from invertigo.data.reads import Reads

READ = ("name", "split", "size", "limit")
"""Of a scenario's data section, what loading reads."""


def data_print(section: Mapping[str, Any], *, load: bool = True) -> str | None:
    """Fingerprint of the files behind a data section, by their places in the set and their contents.

    The set is loaded the first time and when one of its files, folders or rivals has changed; else it is known by the
    sizes and times of its files. None where `load` is False and it would have to be loaded.

    Raises: whatever loading raises, MissingDataError first of all.
    """
    request = {name: section.get(name) for name in READ}
    name = f"data {canonical([request, [str(place) for place in data_places()], os.getcwd()])}"
    kept = recall(name)
    if kept is not None and _unchanged(kept):
        return kept["print"]
    return _loaded(request, name) if load else None


def _loaded(request: Mapping[str, Any], name: str) -> str:
    from invertigo import data
    from invertigo.data.reads import reading

    wanted = {name: value for name, value in request.items() if name != "name" and value is not None}
    data.load(request["name"], **{**wanted, "limit": 1})  # what libraries read when they are first used is not the set
    with reading() as seen:
        data.load(request["name"], **wanted)
    files = {str(path): stamp(path) for path in sorted(seen.files) if path.is_file()}
    digests = {path: file_digest(Path(path)) for path in files}
    found = print_of([sorted([_called(path, request), d] for path, d in digests.items()), _classes(seen, request)])
    facts = {
        "print": found,
        "files": files,
        "folders": {str(path): _listing(path) for path in sorted(seen.folders)},
        "tried": [[path, kind, there] for (path, kind), there in seen.tried.items()],
    }
    keep(name, facts)
    return found


def _unchanged(kept: Mapping[str, Any]) -> bool:
    return (
        all(stamp(Path(path)) == was for path, was in kept["files"].items())
        and all(_listing(Path(path)) == was for path, was in kept["folders"].items())
        and all(getattr(Path(path), kind)() == was for path, kind, was in kept["tried"])
    )


def _classes(seen: Reads, request: Mapping[str, Any]) -> list[str]:
    """The folders that were listed and are not empty: they name and number the classes."""
    return sorted({_called(str(path), request) for path in seen.folders if _listing(path)})


def _listing(path: Path) -> str:
    try:
        return print_of(sorted(name for name in os.listdir(path) if not name.startswith(".")))
    except OSError:
        return ""


def _called(path: str, request: Mapping[str, Any]) -> str:
    """A path as seen from where the set lies, so that moving the whole set changes nothing."""
    file = Path(path)
    for root in _roots(request["name"]):
        if file.is_relative_to(root):
            return file.relative_to(root).as_posix()
    return "/".join(file.parts[-2:])


def _roots(name: str) -> Iterable[Path]:
    yield Path(name).expanduser().absolute()
    yield from (place.absolute() for place in data_places())
