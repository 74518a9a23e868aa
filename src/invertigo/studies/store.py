"""A study on disk: what is done, what failed, what is damaged, and reading it back."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from invertigo.auditing.record import AuditRecord
from invertigo.studies.identity import digest
from invertigo.studies.place import MARKER, Local, Place, place_at
from invertigo.studies.plan import Planned
from invertigo.types.errors import CorruptFileError, MissingDataError

if TYPE_CHECKING:
    from invertigo.studies.expansion import CellSpec

RESULT, FAILURE, TENSORS, LOG, STUDY = (
    "result.json",
    "failure.json",
    "reconstruction.safetensors",
    "log.txt",
    "study.json",
)
State = Literal["done", "failed", "missing", "damaged"]


@dataclass(frozen=True)
class CellResult:
    """One cell as it was run: its record, or why it failed; neither where it has not been run yet."""

    coordinates: Mapping[str, Any]
    seed: int
    record: AuditRecord | None
    failure: str | None
    key: str = ""
    block: int = 0
    """Which of the batches that together make up the study's `examples`."""
    contents: Mapping[str, str] | None = None
    """Fingerprints of what the cell rests on, by name; None where none were written down."""


@dataclass
class Store:
    """The folder or URL of a study. A cell counts as done when its result is there and has the hash it was given."""

    url: str | Path
    place: Place = field(init=False, repr=False)
    _contents: dict[str, Mapping[str, str]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.place = place_at(self.url)

    def done(self, key: str) -> bool:
        """Is there a whole result?"""
        return self.state(key) == "done"

    def state(self, key: str) -> State:
        """What is there of one cell. A half-written or altered one is `damaged`, and is to be computed again."""
        marker = self.place.read(f"cells/{key}/{MARKER}")
        if marker is None:
            return "damaged" if self.place.names(f"cells/{key}") else "missing"
        hashes = _hashes(marker, key)
        if not all(self._whole(key, name, value) for name, value in hashes.items()):
            return "damaged"
        return "done" if RESULT in hashes else "failed" if FAILURE in hashes else "damaged"

    def scan(self, keys: Iterable[str]) -> dict[str, State]:
        """The state of every key, with one look at the folder for those that are not there at all."""
        present = self.place.names("cells")
        return {key: self.state(key) if key in present else "missing" for key in keys}

    def load(self, key: str) -> CellResult:
        """One cell. Raises: MissingDataError where it has not been run, CorruptFileError where it is damaged."""
        content = self.place.read(f"cells/{key}/{MARKER}")
        if content is None:
            raise MissingDataError(f"Cell {key} has not been run in {self.url}; run the study first.")
        hashes = _hashes(content, key)
        marker = json.loads(content) if hashes else {}
        result = self._checked(key, RESULT, hashes)
        failure = None if result is not None else self._checked(key, FAILURE, hashes)
        if result is None and failure is None:
            raise CorruptFileError(f"Cell {key} in {self.url} is damaged; run the study again to compute it anew.")
        return CellResult(
            coordinates=marker["coordinates"],
            seed=marker["seed"],
            record=None if result is None else _record(result, key),
            failure=None if failure is None else json.loads(failure)["traceback"],
            key=key,
            block=marker["block"],
            contents=self._shared(marker.get("contents")),
        )

    def results(self, specs: Sequence[CellSpec | Planned]) -> list[CellResult]:
        """The cells of `specs` in their order; one that is missing or damaged has neither record nor failure."""
        present = self.place.names("cells")
        return [self._result(spec) if spec.key in present else _nothing(spec) for spec in specs]

    def _result(self, spec: CellSpec | Planned) -> CellResult:
        """One cell, each of its files read once."""
        marker = self.marker(spec.key)
        hashes = marker.get("sha256", {})
        files = {name: self._checked(spec.key, name, hashes) for name in hashes}
        if any(content is None for content in files.values()):
            return _nothing(spec)
        result, failure = files.get(RESULT), files.get(FAILURE)
        return replace(
            _nothing(spec),
            record=None if result is None else _record(result, spec.key),
            failure=None if failure is None or result is not None else json.loads(failure)["traceback"],
            contents=self._shared(marker.get("contents")),
        )

    @contextmanager
    def fetched(self, key: str, names: Iterable[str]) -> Iterator[Path]:
        """A local folder with files of a cell: its own, or a copy for as long as the block lasts."""
        if isinstance(self.place, Local):
            yield self.place.root / "cells" / key
            return
        with tempfile.TemporaryDirectory(prefix="invertigo-") as folder:
            for name in names:
                content = self.place.read(f"cells/{key}/{name}")
                if content is not None:
                    (Path(folder) / name).write_bytes(content)
            yield Path(folder)

    def marker(self, key: str) -> dict[str, Any]:
        """What is written down about a cell beside its files; empty where it is not whole or not there."""
        content = self.place.read(f"cells/{key}/{MARKER}")
        return json.loads(content) if content is not None and _hashes(content, key) else {}

    def _shared(self, contents: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """One mapping for all cells that have the same: thousands do."""
        return None if contents is None else self._contents.setdefault(repr(sorted(contents.items())), contents)

    def keep(self, spec: CellSpec, files: Mapping[str, bytes]) -> None:
        """Put a cell in its place, whole; `files` hold its result or its failure. Raises: OutputError."""
        marker = {
            "key": spec.key,
            "coordinates": spec.coordinates,
            "seed": spec.seed,
            "block": spec.block,
            "needs": spec.needs,
            "sha256": {name: digest(content) for name, content in files.items()},
            "contents": spec.contents,
            "config": spec.config,
        }
        self.place.put(f"cells/{spec.key}", {**files, MARKER: _json(marker)})

    def has_artifact(self, key: str) -> bool:
        """Is there a whole artifact?"""
        marker = self.place.read(f"artifacts/{key}/{MARKER}")
        hashes = {} if marker is None else _hashes(marker, key)
        return bool(hashes) and all(self._whole(key, name, value, "artifacts") for name, value in hashes.items())

    def keep_artifact(self, key: str, files: Mapping[str, bytes], config: Mapping[str, Any]) -> None:
        """Put an artifact in its place, whole. Raises: OutputError."""
        marker = {"key": key, "sha256": {name: digest(content) for name, content in files.items()}, "config": config}
        self.place.put(f"artifacts/{key}", {**files, MARKER: _json(marker)})

    def artifact(self, key: str, name: str) -> bytes:
        """A file of an artifact, its hash checked. Raises: CorruptFileError."""
        marker = self.place.read(f"artifacts/{key}/{MARKER}")
        content = self.place.read(f"artifacts/{key}/{name}")
        if marker is None or content is None or _hashes(marker, key).get(name) != digest(content):
            raise CorruptFileError(f"Artifact {key} in {self.url} is damaged; run the study again to make it anew.")
        return content

    def _whole(self, key: str, name: str, value: str, folder: str = "cells") -> bool:
        content = self.place.read(f"{folder}/{key}/{name}")
        return content is not None and digest(content) == value

    def _checked(self, key: str, name: str, hashes: Mapping[str, str]) -> bytes | None:
        content = self.place.read(f"cells/{key}/{name}") if name in hashes else None
        return content if content is not None and digest(content) == hashes[name] else None


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage: the records of ten thousand cells all stay, and looking through them doubles the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _nothing(spec: CellSpec | Planned) -> CellResult:
    return CellResult(spec.coordinates, spec.seed, None, None, spec.key, spec.block)


def _hashes(marker: bytes, key: str) -> dict[str, str]:
    """The hashes that a marker promises; none when it is no marker of this cell."""
    try:
        read = json.loads(marker)
        return dict(read["sha256"]) if read["key"] == key else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _record(content: bytes, key: str) -> AuditRecord:
    try:
        return AuditRecord.model_validate_json(content)
    except ValidationError as error:
        raise CorruptFileError(
            f"The result of cell {key} is not one of this version of Invertigo ({error.error_count()} problems); "
            "use the version that wrote it, or another folder."
        ) from error


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
