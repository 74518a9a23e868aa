"""Where a study lies: a local folder, or any place that fsspec reaches. A folder appears there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from invertigo.types.errors import OutputError
from invertigo.types.extras import require

Files = Mapping[str, bytes]
MARKER = "config.json"
"""The file of a cell that names the others and their hashes; on remote places it is written last."""


@runtime_checkable
class Place(Protocol):
    """Folders of small files under one address; `folder` is a path such as `cells/0123`."""

    def names(self, folder: str) -> set[str]:
        """What lies in a folder; empty where there is none."""
        ...

    def read(self, path: str) -> bytes | None:
        """A file, or None where there is none."""
        ...

    def put(self, folder: str, files: Files) -> None:
        """Write a folder, in place of one that may be there. Raises: OutputError; then nothing has changed."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Write one file whole. Raises: OutputError."""
        ...

    def prepare(self) -> None:
        """Prove that something can be written here. Raises: OutputError."""
        ...

    def sweep(self, keys: set[str]) -> None:
        """Remove what a killed run left half-written of these cells."""
        ...


def place_at(address: str | Path) -> Place:
    """The place at a local path or at a URL such as `s3://bucket/study`. Raises: OutputError, MissingExtraError."""
    text = str(address)
    if "://" not in text:
        return Local(Path(text))
    fsspec = require("fsspec", "cluster")
    try:
        system, root = fsspec.core.url_to_fs(text)
    except (ValueError, ImportError) as error:
        raise OutputError(f"{text} is no place that can be written: {error}.") from error
    return Remote(system, root, text)


@dataclass(frozen=True)
class Local:
    """A folder of this machine, or of a file system that all machines mount."""

    root: Path

    def names(self, folder: str) -> set[str]:
        """See `Place`."""
        try:
            return set(os.listdir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def read(self, path: str) -> bytes | None:
        """See `Place`."""
        try:
            with open(self.root / path, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def put(self, folder: str, files: Files) -> None:
        """Fill `partial/<key>-<pid>`, then rename it, which happens at one moment.

        The disk is not waited for: after a power cut the hashes tell which cells did not get there.
        """
        home = self.root / folder
        aside = self.root / "partial" / f"{home.name}-{os.getpid()}"
        try:
            aside.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (aside / name).write_bytes(content)
            home.parent.mkdir(parents=True, exist_ok=True)
            if home.exists():
                self._retire(home)
            os.rename(aside, home)
        except OSError as error:
            raise unwritable(home, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def write(self, path: str, content: bytes) -> None:
        """See `Place`."""
        home = self.root / path
        aside = home.with_name(f".{home.name}.{os.getpid()}")
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            os.replace(aside, home)
        except OSError as error:
            raise unwritable(home, error) from error
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def prepare(self) -> None:
        """See `Place`."""
        try:
            (self.root / "cells").mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root / "cells"):
                return
        except OSError as error:
            raise unwritable(self.root, error) from error

    def sweep(self, keys: set[str]) -> None:
        """See `Place`."""
        for name in self.names("partial"):
            if name.split("-")[0] in keys:
                shutil.rmtree(self.root / "partial" / name, ignore_errors=True)

    def _retire(self, home: Path) -> None:
        """A folder cannot be renamed onto another one, so the old one leaves first; a kill in between loses it only."""
        old = self.root / "partial" / f"{home.name}-{os.getpid()}-old"
        os.rename(home, old)
        shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class Remote:
    """An fsspec file system. It may not rename at one moment, so the marker with the hashes is written last."""

    system: Any
    root: str
    url: str

    def names(self, folder: str) -> set[str]:
        """See `Place`."""
        try:
            # Another machine may have written since this one last looked.
            self.system.invalidate_cache()
            return {name.rstrip("/").rpartition("/")[2] for name in self.system.ls(self._at(folder), detail=False)}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def read(self, path: str) -> bytes | None:
        """See `Place`."""
        try:
            return self.system.cat_file(self._at(path))
        except (FileNotFoundError, IsADirectoryError):
            return None

    def put(self, folder: str, files: Files) -> None:
        """Take the old marker away, write the files, and write the marker last."""
        try:
            if self.names(folder):
                self.system.rm(self._at(folder), recursive=True)
            self.system.makedirs(self._at(folder), exist_ok=True)
            for name in sorted(files, key=lambda name: name == MARKER):
                self.system.pipe_file(self._at(f"{folder}/{name}"), files[name])
        except OSError as error:
            raise unwritable(f"{self.url}/{folder}", error) from error

    def write(self, path: str, content: bytes) -> None:
        """See `Place`."""
        try:
            self.system.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)
            self.system.pipe_file(self._at(path), content)
        except OSError as error:
            raise unwritable(f"{self.url}/{path}", error) from error

    def prepare(self) -> None:
        """See `Place`."""
        self.write(".writable", b"")

    def sweep(self, keys: set[str]) -> None:
        """Nothing is written aside here; a cell without its marker is recomputed."""

    def _at(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"


def unwritable(where: object, error: OSError) -> OutputError:
    """The error of a place that takes nothing more; everything written earlier is whole."""
    return OutputError(
        f"{where} cannot be written ({error.strerror or error}). Every cell written before is whole: "
        "free space or change the permissions, then run the same command again."
    )
