"""Results on disk: `report.html`, `result.json` and `reconstruction.safetensors`, each written whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from invertigo.auditing.record import AuditRecord
from invertigo.types.errors import ConfigurationError, CorruptFileError, MissingDataError, OutputError
from invertigo.types.untrusted import MEBIBYTE, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from invertigo.auditing import Audit

RESULT, TENSORS, PAGE = "result.json", "reconstruction.safetensors", "report.html"
UNFINISHED = ".unfinished"
"""Lies in the folder of an audit from its start until its result is whole."""
LARGEST_RESULT = 256 * MEBIBYTE
_TRUTH, _STRANGERS = "truth/", "strangers/"
_OWN_FOLDER = re.compile(r"[0-9]+-[a-z0-9-]*")
"""Of one of several audits that share a page."""


def ensure_writable(folder: str | Path) -> Path:
    """Create `folder` and prove that a file can be written there, before anything expensive is computed.

    Raises: OutputError.
    """
    folder = Path(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise _unwritable(folder, error) from error


def begin(folder: str | Path) -> Path:
    """`ensure_writable`, and mark that the results in `folder` are not those of the run that now starts.

    Whoever reads the folder before `save` has ended is told so, instead of being shown an earlier run's result.
    """
    folder = ensure_writable(folder)
    write_aside(folder / UNFINISHED, lambda aside: aside.write_text("An audit into this folder has not ended yet.\n"))
    return folder


def write_aside(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a file beside `path`, for its owner only, then put it in place in one step.

    Raises: OutputError.
    """
    from safetensors import SafetensorError  # how a full disk shows when tensors are written

    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        write(aside)
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return path


def write_json(audit: Audit, path: str | Path) -> Path:
    """Write the record of an audit as JSON; infinite scores are written as the strings "Infinity" and "-Infinity"."""
    text = audit.record.model_dump_json(indent=1)
    return write_aside(Path(path), lambda aside: aside.write_text(text, encoding="utf-8"))


def save(
    audit: Audit | Sequence[Audit],
    folder: str | Path,
    *,
    include_originals: bool | None = None,
    redact: bool = False,
    title: str | None = None,
) -> Path:
    """Write an audit into `folder`, and return the path of its page.

    Several audits share one page, and each has its own folder beside it. Originals are stored only where the
    page may show them; a redacted result stores no tensors at all. The folder belongs to what was saved last: results,
    tensors and pages of an earlier audit in it are removed first.
    """
    from invertigo.report.html import write_html

    folder = begin(folder)
    _clear(folder)
    audits = together(audit)
    homes = [folder] if len(audits) == 1 else [folder / _slug(i, one.record) for i, one in enumerate(audits, 1)]
    for one, home in zip(audits, homes):
        write_json(one, home / RESULT)
        if not redact:
            _write_tensors(one, home / TENSORS, include_originals)
    page = write_html(audits, folder / PAGE, include_originals=include_originals, redact=redact, title=title)
    (folder / UNFINISHED).unlink(missing_ok=True)
    return page


def _clear(folder: Path) -> None:
    """Remove what an earlier audit wrote into `folder`, and nothing else."""
    try:
        beside = [home for home in folder.iterdir() if _OWN_FOLDER.fullmatch(home.name) and (home / RESULT).is_file()]
        for home in (folder, *beside):
            for name in (RESULT, TENSORS, PAGE):
                (home / name).unlink(missing_ok=True)
        for home in beside:
            with suppress(OSError):  # the user may keep something of his own in it
                home.rmdir()
    except OSError as error:
        raise _unwritable(folder, error) from error


def together(audit: Audit | Sequence[Audit]) -> list[Audit]:
    """The audits of one page: a sequence as it is, or one audit with its companions."""
    return list(audit) if isinstance(audit, Sequence) else [audit, *audit.companions]


def load(path: str | Path) -> Audit:
    """Read one audit back from its folder or its `result.json`. Raises: MissingDataError, CorruptFileError."""
    from invertigo import domains
    from invertigo.auditing import Audit
    from invertigo.types import Batch, read_tensors

    (file,) = result_files(path)[:1]
    record = read_record(file)
    kind: Any = domains.registry[record.domain["name"]]
    beside = file.with_name(TENSORS)
    tensors = read_tensors(beside) if beside.exists() else {}
    truth, strangers = (_under(prefix, tensors) for prefix in (_TRUTH, _STRANGERS))
    rebuilt = {name: t for name, t in tensors.items() if not name.startswith((_TRUTH, _STRANGERS))}
    return Audit(
        record=record,
        reconstructions=rebuilt,
        originals=Batch(truth) if truth else None,
        domain=kind.from_config(record.domain),
        strangers=strangers,
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def load_all(*paths: str | Path) -> list[Audit]:
    """Read every audit found at `paths`; a folder may hold one result or a folder for each of several."""
    return [load(file) for path in paths for file in result_files(path)]


def read_records(*paths: str | Path) -> list[AuditRecord]:
    """The records at `paths`, without any tensor."""
    return [read_record(file) for path in paths for file in result_files(path)]


def result_files(path: str | Path) -> list[Path]:
    """The `result.json` that `path` is or holds, or those of the folders in it. Raises: MissingDataError."""
    path = Path(path)
    if path.suffix.lower() in (".html", ".htm"):
        beside = path.with_name(RESULT)
        found = str(beside) if beside.is_file() else f"the folder that holds its {RESULT}"
        raise ConfigurationError(
            f"{path} is a page for people; its numbers are in {RESULT}. Pass {found}, or write one with "
            "`invertigo audit --out FOLDER` or audit.save('audit.json')."
        )
    if path.is_file():
        return [path]
    if (path / UNFINISHED).exists():
        raise MissingDataError(
            f"The last audit into {path} did not end, so what lies there is not its result. Run it again; to read an "
            f"earlier result all the same, name its {RESULT}, or remove {path / UNFINISHED}."
        )
    found = [path / RESULT] if (path / RESULT).is_file() else sorted(path.glob(f"*/{RESULT}"))
    if not found:
        raise MissingDataError(
            f"There is no result at {path}: neither a {RESULT} nor a folder that holds one. "
            "Give the folder that `invertigo audit --out` wrote."
        )
    return found


def read_record(file: Path) -> AuditRecord:
    """Read one `result.json`. Raises: CorruptFileError naming the first thing that is wrong with it."""
    try:
        return AuditRecord.model_validate_json(read_bytes(file, largest=LARGEST_RESULT))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise CorruptFileError(
            f"{file} is not a result of this version of Invertigo: {first['msg']} ({place}; "
            f"{error.error_count()} problems in all). Run the audit again, or use the version that wrote it."
        ) from error


def _write_tensors(audit: Audit, path: Path, include_originals: bool | None) -> None:
    from safetensors.torch import save_file

    from invertigo.report.views import shows_originals

    tensors = dict(audit.reconstructions) | {f"{_STRANGERS}{name}": t for name, t in audit.strangers.items()}
    if audit.originals is not None and shows_originals(audit.record, include_originals):
        tensors |= {f"{_TRUTH}{name}": tensor for name, tensor in audit.originals.fields.items()}
    if tensors:
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_aside(path, lambda aside: save_file(plain, aside))


def _slug(position: int, record: AuditRecord) -> str:
    return f"{position}-{re.sub('[^a-z0-9]+', '-', record.title.lower()).strip('-')[:40]}"


def _unwritable(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"{path} cannot be written ({getattr(error, 'strerror', None) or error}), so a result would be lost. "
        "Choose another folder with --out, or change its permissions."
    )
