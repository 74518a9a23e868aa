"""What every cell rests on: Invertigo itself, by its source, and the libraries that compute."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from invertigo.studies.prints import keep_sources, tree_print

NUMERIC = ("numpy", "scipy", "pillow", "networkx")
"""Libraries, beside PyTorch, whose version may change a number."""
SHOWS = frozenset({"cli", "report", "flower", "testing", "studies", "__main__.py"})
"""Rooms that change no number of a cell: they show it, plan it, or use what makes it."""
COUNTED = ("studies/cells.py", "studies/artifacts.py")
"""Of those rooms, what runs a cell."""


def house_prints() -> dict[str, str]:
    """Fingerprints of Invertigo's own code and versions of what it computes with."""
    libraries = {name: _version(name) for name in NUMERIC}
    return {"invertigo": own_print(), "torch": torch_version(), **libraries}


def own_print() -> str:
    """The version of Invertigo and the fingerprint of its source, wherever that lies, without its comments."""
    root = Path(__file__).parents[1]
    found = f"{_version('invertigo')} {tree_print(root, own_files(root))}"
    keep_sources()
    return found


def own_files(root: Path) -> list[Path]:
    """The files of the package that decide a cell's numbers: code, and the data that come with it."""
    files = (file for file in root.rglob("*") if file.suffix not in (".pyc", ".yaml", ".pyi") and file.is_file())
    return [file for file in files if _counts(file.relative_to(root))]


def _counts(path: Path) -> bool:
    return path.parts[0] not in SHOWS or path.as_posix() in COUNTED


def torch_version() -> str:
    """The version that PyTorch gives itself, with its build, without importing it."""
    loaded = sys.modules.get("torch")
    if loaded is not None and hasattr(loaded, "__version__"):
        return str(loaded.__version__)
    spec = find_spec("torch")
    told = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    lines = told.read_text(encoding="utf-8").splitlines() if told and told.is_file() else []
    named = [line.partition("=")[2].strip().strip("'\"") for line in lines if line.startswith("__version__")]
    return named[0] if named else _version("torch")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
