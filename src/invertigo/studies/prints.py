"""Fingerprints of files: Python without its comments, anything else as it is; what was read before is not read again.

The cache lies in the user's cache folder. A source is looked up by the hash of its bytes; a data file by its size and
its times, of which no program can set the time of change, so that an edited file is never taken for the old one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tokenize
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from invertigo.studies.identity import canonical, digest

SHORT = 20
"""Hexadecimal digits of a fingerprint."""


def print_of(parts: Any) -> str:
    """One fingerprint of plain data."""
    return digest(canonical(parts).encode())[:SHORT]


def source_print(content: bytes) -> str:
    """Fingerprint of Python source, which neither comments nor empty lines change.

    What cannot be read as Python is taken as it is.
    """
    raw, known = digest(content), _sources()
    if raw not in known:
        known[raw] = digest(_uncommented(content))[:SHORT]
        known.setdefault(_NEW, []).append(raw)
    return known[raw]


def _uncommented(content: bytes) -> bytes:
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(content).readline))
        lines = content.decode(tokens[0].string).splitlines()
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):
        return content
    kept: set[int] = set()
    for token in reversed(tokens):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column]
        elif token.end[0] > row:
            kept |= set(range(row, token.end[0]))  # inside a long text every line and space counts
    trimmed = (line if row in kept else line.rstrip() for row, line in enumerate(lines, 1))
    return "\n".join(line for row, line in enumerate(trimmed, 1) if line or row in kept).encode()


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> list[int] | None:
    """Size and times of a file, which change with it; None where there is none."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def stamped_digest(path: Path) -> str:
    """`file_digest`, read anew only when the file's size or times have changed."""
    kept, now = recall(f"file {path.resolve()}"), stamp(path)
    if kept is not None and kept["stamp"] == now:
        return kept["digest"]
    found = file_digest(path)
    keep(f"file {path.resolve()}", {"stamp": now, "digest": found})
    return found


def recall(name: str) -> Any:
    """What was kept under `name`; None where nothing was, or it cannot be read."""
    try:
        return json.loads(_home(name).read_bytes())
    except (OSError, ValueError):
        return None


def keep(name: str, value: Mapping[str, Any]) -> None:
    """Keep plain data under `name`; a cache that cannot be written is done without."""
    home = _home(name)
    aside = home.with_name(f".{home.name}.{os.getpid()}")
    with suppress(OSError):
        home.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(value), encoding="utf-8")
        os.replace(aside, home)


def keep_sources() -> None:
    """Write down the sources that were read in this process."""
    known = _sources()
    if known.pop(_NEW, None):
        keep(_SOURCES, known)


_SOURCES, _NEW = f"sources by {digest(Path(__file__).read_bytes())}", ""
"""What another version of this file made of sources is not believed."""


@cache
def _sources() -> dict[str, Any]:
    return dict(recall(_SOURCES) or {})


def _home(name: str) -> Path:
    return _cache_folder() / "fingerprints" / f"{digest(name.encode())[:SHORT]}.json"


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "invertigo"


def data_places() -> list[Path]:
    """`invertigo.data.locate.places`, which cannot be asked without importing PyTorch; a test holds the two equal."""
    named = os.environ.get("INVERTIGO_DATA")
    return [*([Path(named).expanduser()] if named else []), _cache_folder()]


def tree_print(root: Path, files: Iterable[Path]) -> str:
    """Fingerprint of files by their paths below `root` and their contents."""
    return print_of([[file.relative_to(root).as_posix(), content_print(file)] for file in sorted(files)])


def content_print(file: Path) -> str:
    """Fingerprint of one file: of Python without its comments."""
    return source_print(file.read_bytes()) if file.suffix == ".py" else stamped_digest(file)
