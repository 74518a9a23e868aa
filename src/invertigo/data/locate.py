"""Where the files of public sets are looked for, and what to tell a reader who does not have them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from invertigo.data.reads import exists
from invertigo.types import MissingDataError


def places(root: Path | None = None) -> list[Path]:
    """Folders that may hold data, the first one wins: `root` alone if given, else `INVERTIGO_DATA`, then the cache."""
    if root is not None:
        return [root]
    named = os.environ.get("INVERTIGO_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "invertigo"
    return [*([Path(named).expanduser()] if named else []), cache]


def find(
    name: str,
    candidates: Iterable[str],
    root: Path | None,
    *,
    beside: Iterable[Path] = (),
    layouts: Iterable[str] | None = None,
) -> Path:
    """The first of `candidates` (paths relative to a place) that exists, or the first of the absolute paths `beside`.

    `layouts` are the candidates as a reader of the error should see them; None: as they are.

    Raises: MissingDataError that lists every place and layout that would have done.
    """
    candidates = list(candidates)
    found = (place / candidate for place in places(root) for candidate in candidates)
    for path in [*found, *(beside if root is None else ())]:
        if exists(path):
            return path
    raise missing(name, candidates if layouts is None else layouts, root)


def missing(name: str, layouts: Iterable[str], root: Path | None) -> MissingDataError:
    """The error that says where to put which files."""
    where = " or ".join(str(place) for place in places(root))
    unset = (
        "" if root is not None or os.environ.get("INVERTIGO_DATA") else " (or set INVERTIGO_DATA to your data folder)"
    )
    return MissingDataError(
        f"The data set '{name}' is not on this machine, and nothing is downloaded for you. In {where}{unset}, put "
        f"{', or '.join(layouts)}. Sets that need no files: faces, digits, photos, six_photos, drugs, karate."
    )
