"""What loading a data set reads: the files that are opened, the folders that are listed, the paths that are tried."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

CODE = frozenset({".py", ".pyc", ".pyi", ".so", ".pyd", ".dll", ".pth"})
"""Suffixes of files that are imported, not read."""
SYSTEM = ("/proc", "/sys", "/dev", "/etc")


@dataclass
class Reads:
    """Gathered while data are loaded; `tried` are paths whose being there, or not, decided what was read."""

    files: set[Path] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)
    tried: dict[tuple[str, str], bool] = field(default_factory=dict)
    thread: int = field(default_factory=threading.get_ident)


_active: list[Reads] = []


@contextmanager
def reading() -> Iterator[Reads]:
    """Inside, everything that this thread opens, lists or `tries` is noted, through whatever library it does."""
    _listen()
    seen = Reads()
    _active.append(seen)
    try:
        yield seen
    finally:
        _active.remove(seen)


def exists(path: Path, kind: str = "exists") -> bool:
    """`path.exists()`, `is_file` or `is_dir`, noted: a file that is put there later would be read instead."""
    found = bool(getattr(path, kind)())
    for seen in _active:
        seen.tried[str(path), kind] = found
    return found


@cache
def _listen() -> None:
    """Python's audit events are the one place that every way of opening a file passes; a hook is for good."""
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _active or event not in ("open", "os.listdir", "os.scandir"):
        return
    path = arguments[0]
    if not isinstance(path, (str, bytes, os.PathLike)):
        return
    if _importing():
        return
    place = Path(os.fsdecode(path)).absolute()
    for seen in _active:
        if seen.thread == threading.get_ident():
            _note(seen, event, place, arguments)


def _importing() -> bool:
    """A module is being imported: what it reads on the way comes from its package and is read once a process."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(("<frozen importlib", "<frozen zipimport")):
            return True
        frame = frame.f_back
    return False


def _note(seen: Reads, event: str, place: Path, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        seen.folders.add(place)
    elif _is_data(place) and _reads(arguments):
        seen.files.add(place)


def _reads(arguments: tuple[Any, ...]) -> bool:
    mode, flags = (*arguments, None, None)[1:3]
    if isinstance(mode, str):
        return not set(mode) & set("wax+")
    return not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))


def _is_data(path: Path) -> bool:
    parts = path.parts
    packaged = any(part.endswith((".dist-info", ".egg-info")) or part == "__pycache__" for part in parts)
    return path.suffix not in CODE and not packaged and not str(path).startswith(SYSTEM)
