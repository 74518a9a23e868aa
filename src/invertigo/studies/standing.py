"""Whether results still are what the present code would find: which of the things they rest on have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invertigo.studies.contents import MISSING, present
from invertigo.studies.house import house_prints

if TYPE_CHECKING:
    from invertigo.studies.store import CellResult

UNKNOWN = "what they rest on, which was not written down"


@dataclass(frozen=True)
class Standing:
    """Of `cells` with a result, those that no longer match the present code, data and libraries, and why.

    `unchecked` names what could not be looked at from here, such as a module that is not in this folder.
    """

    cells: int
    changed: frozenset[str] = frozenset()
    """Keys of the cells that no longer match."""
    names: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """What a reader must know, in plain words; nothing when all is as it was."""
        said = []
        if self.changed:
            said.append(
                f"{len(self.changed)} of {self.cells} cells no longer match the present code: changed since: "
                f"{', '.join(self.names)}. They are shown all the same; --matching leaves them out, and running the "
                "study again computes them anew."
            )
        if self.unchecked:
            said.append(f"Not looked at, since it is not to be found from here: {', '.join(self.unchecked)}.")
        return said


def standing(results: Sequence[CellResult]) -> Standing:
    """Hold the fingerprints that cells were named after against those of today. Data sets are not read for it."""
    return standing_of({result.key: result.contents for result in results if result.record or result.failure})


def standing_of(contents: Mapping[str, Mapping[str, str] | None]) -> Standing:
    """The same from the fingerprints by cell key; None of a cell that has none."""
    now: dict[str, str | None] = {}
    house = house_prints()
    changed, names, unchecked = set(), {}, {}
    for key, kept in contents.items():
        if not kept:
            changed.add(key)
            names[UNKNOWN] = None
        for name, was in (kept or {}).items():
            if name not in now:
                now[name] = present(name, house)
            found = now[name]
            if found is None and was != MISSING:
                unchecked[_plain(name)] = None
            elif found is not None and found != was:
                changed.add(key)
                names[_plain(name)] = None
    return Standing(len(contents), frozenset(changed), tuple(names), tuple(unchecked))


def _plain(name: str) -> str:
    kind, _, rest = name.partition(" ")
    if kind != "data":
        return name
    import json

    return f"data {json.loads(rest)['name']}"
