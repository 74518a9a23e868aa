"""Before a process runs a cell: is what it would run the thing that the cell was named after?"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from invertigo.studies.contents import present
from invertigo.studies.house import house_prints
from invertigo.studies.prints import content_print
from invertigo.studies.sources import installed, reach

_known: dict[str, tuple[Path, str]] = {}
"""Modules of somebody's own as this process found them last: file and fingerprint."""


def misfit(contents: Mapping[str, str]) -> str:
    """What differs here from the fingerprints that a cell's key was made of, in one line; empty when nothing does.

    Asked once a process: what it has imported by then stays as it is. Modules of a factory whose file is another by
    now, or was edited, are forgotten first, so that they are imported anew.
    """
    for name in contents:
        if name.startswith("factory "):
            _freshen(name.partition(" ")[2])
    return _differs(tuple(sorted(contents.items())))


@cache
def _differs(contents: tuple[tuple[str, str], ...]) -> str:
    # Data last: reading them is dear, and another version of the code already tells enough.
    house = house_prints()
    for name, wanted in sorted(contents, key=lambda item: item[0].startswith("data ")):
        found = present(name, house, load=True)
        if found != wanted and wanted != "missing" and not wanted.startswith("unknown"):
            return f"{name} is not what this cell was named after (here {found or 'not to be found'}, there {wanted})"
    return ""


def _freshen(factory: str) -> None:
    files = reach(factory, here=True).files
    now = {name: (file.resolve(), content_print(file)) for name, file in files.items()}
    if any(_is_old(name, *seen) for name, seen in now.items()):
        for name in now:
            sys.modules.pop(name, None)
        _differs.cache_clear()
    _known.update(now)


def _is_old(name: str, file: Path, content: str) -> bool:
    """A module that this process imported from another file, or from this one before it was edited."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is None or installed(Path(loaded)):
        return False
    return Path(loaded).resolve() != file or _known.get(name, (file, content)) != (file, content)
