"""The code behind a name: every file of somebody's own that a module imports, however far, and what else it reads.

Files and not names: the module is looked up as Python would, from the working folder first where a factory is meant,
and is neither imported nor asked for its version. An installed package that is reached counts by its version.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from invertigo.studies.prints import content_print, print_of, stamped_digest

OURS = "invertigo"
LONGEST = 200
"""Characters of a text in the source that may name a file."""
BESIDE = 500
"""Files beside the code of a package that are looked at."""


def module_print(name: str, *, here: bool = False) -> str:
    """Fingerprint of a module and of all that it imports.

    Args:
        name: as it is imported.
        here: the working folder is looked in first, as for a model's factory; else where it was imported from.
    """
    reached = reach(name, here=here)
    files = {module: content_print(file) for module, file in reached.files.items()}
    data = sorted({stamped_digest(file) for file in reached.data})
    packages = {name: _package(name) for name in sorted(reached.packages)}
    return print_of([files, data, packages, sorted(reached.unknown)])


@dataclass
class Reach:
    """What a module leads to: own files by module name, files they name, installed packages, names without a file."""

    files: dict[str, Path] = field(default_factory=dict)
    data: set[Path] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def reach(name: str, *, here: bool = False) -> Reach:
    """Follow every import of a module, also those inside functions, through files that no installed package owns.

    The package that the module itself belongs to is followed wherever it lies, so that a plug-in counts by its files
    whether it is installed or not.
    """
    search = [str(Path.cwd()), *sys.path] if here else list(sys.path)
    finder, found, waiting = _Finder(search, imported=not here), Reach(), [name]
    home, seen = name.partition(".")[0], set()
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        waiting += _parents(wanted)
        origin = finder.origin(wanted)
        top = wanted.partition(".")[0]
        if top == OURS and home != OURS:
            continue
        if origin is None:
            found.unknown |= {wanted} if wanted == name else set()
        elif top != home and installed(origin):
            found.packages.add(top)
        elif not _standard(origin):
            found.files[wanted] = origin
            imports, texts = _read(origin, wanted, finder.is_package(wanted))
            waiting += imports
            found.data |= _named(texts, origin) | _beside(origin, finder.is_package(wanted))
    return found


class _Finder:
    """Looks modules up without importing them."""

    def __init__(self, search: Sequence[str], imported: bool) -> None:
        self.search, self.imported = list(search), imported
        self.known: dict[str, ModuleSpec | None] = {}

    def origin(self, name: str) -> Path | None:
        """The file of a module; None for a built-in one, a folder without code, or none at all."""
        spec = self.spec(name)
        file = Path(spec.origin) if spec and spec.origin and spec.has_location else None
        return file if file is not None and file.is_file() else None

    def is_package(self, name: str) -> bool:
        spec = self.spec(name)
        return bool(spec and spec.submodule_search_locations is not None)

    def spec(self, name: str) -> ModuleSpec | None:
        if name not in self.known:
            self.known[name] = self._loaded(name) or self._looked_up(name)
        return self.known[name]

    def _loaded(self, name: str) -> ModuleSpec | None:
        module = sys.modules.get(name) if self.imported else None
        spec = getattr(module, "__spec__", None)
        file = getattr(module, "__file__", None)
        if module is not None and spec is None and file:  # the script that was started
            spec = ModuleSpec(name, None, origin=str(Path(file).resolve()))
            spec.has_location = True
        return spec

    def _looked_up(self, name: str) -> ModuleSpec | None:
        parent, _, _ = name.rpartition(".")
        try:
            if parent:
                above = self.spec(parent)
                places = above.submodule_search_locations if above else None
                return PathFinder.find_spec(name, list(places)) if places else None
            PathFinder.invalidate_caches()
            found = PathFinder.find_spec(name, self.search)
            return found or next(filter(None, (_ask(finder, name) for finder in sys.meta_path)), None)
        except (ImportError, ValueError, AttributeError, KeyError):
            return None


def _ask(finder: Any, name: str) -> ModuleSpec | None:
    """An editable install may have a finder of its own."""
    return finder.find_spec(name, None) if hasattr(finder, "find_spec") else None


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _read(file: Path, module: str, package: bool) -> tuple[list[str], set[str]]:
    """Modules that a file imports, and short texts in it."""
    if file.suffix != ".py":
        return [], set()
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return [], set()  # it counts by its bytes, and whoever imports it is told what is wrong
    imports: list[str] = []
    texts: set[str] = set()
    for node in ast.walk(tree):
        imports += _imports(node, module if package else module.rpartition(".")[0])
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) <= LONGEST:
            texts.add(node.value)
    return imports, texts


def _imports(node: ast.AST, inside: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (one.name for one in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = inside.split(".")[: len(inside.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield from [base, *(f"{base}.{one.name}" for one in node.names if one.name != "*")] if base else []
    elif isinstance(node, ast.Call) and node.args and _imports_by_name(node.func):
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            dots = len(first.value) - len(first.value.lstrip("."))
            above = inside.split(".")[: len(inside.split(".")) - dots + 1] if dots else []
            yield ".".join([*above, first.value.lstrip(".")])


def _imports_by_name(function: ast.AST) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _named(texts: set[str], source: Path) -> set[Path]:
    """Files that texts in the source name, seen from its own folder, a folder in it, or the working folder."""
    plain = {text for text in texts if "\n" not in text and "\0" not in text}
    homes = [source.parent, Path.cwd()]
    homes += [home / text for home in homes for text in plain if text not in (".", "..", "/") and _is_dir(home / text)]
    return {
        file for home in homes for text in plain if "." in text and (file := home / text).suffix != ".py" and _is(file)
    }


def _beside(source: Path, package: bool) -> set[Path]:
    """What lies in a package's folder beside its code."""
    if not package:
        return set()
    files = (file for file in source.parent.rglob("*") if "__pycache__" not in file.parts and file.is_file())
    return {file for file, _ in zip((f for f in files if f.suffix not in (".py", ".pyc")), range(BESIDE))}


def _is(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


@cache
def _homes() -> tuple[list[Path], list[Path]]:
    """Where packages are installed, and where the standard library lies."""
    paths = sysconfig.get_paths()
    import site

    places = {paths["purelib"], paths["platlib"], site.getusersitepackages(), *site.getsitepackages()}
    installed = [Path(place).resolve() for place in places]
    return installed, [Path(paths[name]).resolve() for name in ("stdlib", "platstdlib")]


def installed(file: Path) -> bool:
    """The file belongs to an installed package."""
    resolved = file.resolve()
    return any(place in resolved.parents for place in _homes()[0])


def _standard(file: Path) -> bool:
    resolved = file.resolve()
    return not installed(file) and any(place in resolved.parents for place in _homes()[1])


def _package(top: str) -> str:
    """The version of the distribution that brings a package."""
    try:
        return version(top)
    except PackageNotFoundError:
        owners = _distributions().get(top, [])
        return ", ".join(f"{owner} {version(owner)}" for owner in sorted(set(owners))) or "unknown"


@cache
def _distributions() -> Any:
    return packages_distributions()
