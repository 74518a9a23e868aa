"""The house rules that a machine can check: who imports whom, what is never done, and that everything is documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import invertigo

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "invertigo"
ROOMS = (
    "types", "domains", "data", "models", "federation", "attacks", "defenses", "guards", "evaluation", "auditing",
    "flower", "studies", "report", "cli", "testing",
)  # fmt: skip
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 300, 80

UPWARD = {("auditing", "report")}
"""Allowed inside a function only: an audit knows how to save itself."""

UNPICKLERS = {"data/cifar.py", "data/inert_pickle.py"}
"""CIFAR-10 and Citeseer are published as pickles; these files read them with unpicklers that know arrays only."""

LENDERS = {"models/building.py", "federation/randomness.py"}
"""`nn.Module` constructors and dropout take no generator, so these lend the global one a seed in a fork."""

MOVERS = {"testing/attack_results.py"}
"""Moves the global state on, in a fork, to see whether an attack depends on it."""

SEEDING = {"manual_seed", "manual_seed_all", "seed", "seed_all", "seed_everything", "use_deterministic_algorithms"}
DRAWS = {
    "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson",
    "rand_like", "randn_like", "randint_like",
}  # fmt: skip


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module a file imports from, with whether the import stands at the top level."""
    top = set(map(id, tree(path).body))
    package = ["invertigo", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield module, id(node) in top
            if module == "invertigo":
                yield from ((f"invertigo.{alias.name}", id(node) in top) for alias in node.names)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "invertigo" else None


def test_every_room_is_known():
    found = {name_of(path).split("/")[0].removesuffix(".py") for path in FILES} - {"__init__", "__main__"}
    assert found <= set(ROOMS)


def test_a_room_imports_only_from_rooms_before_it():
    wrong = []
    for path in FILES:
        room = name_of(path).split("/")[0].removesuffix(".py")
        for module, top_level in imports(path):
            other = room_of(module)
            if room in ("__init__", "__main__") or other in (None, "__version__"):
                continue
            earlier = other in ROOMS and ROOMS.index(other) <= ROOMS.index(room)
            if not earlier and (top_level or (room, other) not in UPWARD):
                wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_nothing_private_crosses_a_file():
    wrong = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("invertigo"):
                private = [a.name for a in node.names if a.name.startswith("_") and a.name != "__version__"]
                wrong += [f"{name_of(path)}:{node.lineno} imports {name} of {node.module}" for name in private]
    assert wrong == []


def test_nobody_seeds_globally():
    """Pass a torch.Generator instead."""
    wrong = []
    for path in FILES:
        for node, name in calls(path):
            head, _, last = name.rpartition(".")
            if last in SEEDING and head.split(".")[0] in ("torch", "random", "numpy", "np"):
                wrong.append(f"{name_of(path)}:{node.lineno} {name}")
    assert [line for line in wrong if line.split(":")[0] not in LENDERS] == []


def test_every_draw_names_its_generator():
    wrong = []
    for path in FILES:
        if name_of(path) in MOVERS or name_of(path).startswith("models/"):  # models are constructed by the lender
            continue
        for node, name in calls(path):
            head, _, last = name.rpartition(".")
            drawn = head == "torch" and last in DRAWS
            drawn |= head in ("random", "numpy.random", "np.random") and last in DRAWS | {"random", "choice"}
            if drawn and not {keyword.arg for keyword in node.keywords} & {"generator", None}:  # None: **arguments
                wrong.append(f"{name_of(path)}:{node.lineno} {name}")
    assert wrong == []


def test_nothing_is_unpickled_or_evaluated():
    picklers = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    forbidden = {"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec"}
    wrong = []
    for path in FILES:
        if name_of(path) in UNPICKLERS:
            continue
        wrong += [
            f"{name_of(path)} imports {module}" for module, _ in imports(path) if module.split(".")[0] in picklers
        ]
        for node, name in calls(path):
            risky = [k.value for k in node.keywords if k.arg == "allow_pickle"] if name.endswith(".load") else []
            if name in forbidden or not all(isinstance(v, ast.Constant) and v.value is False for v in risky):
                wrong.append(f"{name_of(path)}:{node.lineno} {name}")
    assert wrong == []


def narrows(test: ast.expr) -> bool:
    if isinstance(test, ast.Call):
        return dotted(test.func) == "isinstance"
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot)


def test_mistakes_of_users_are_errors_with_words():
    """`assert` vanishes under `python -O` and says nothing (telling a type checker what a value is, is fine)."""
    wrong = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Assert) and not narrows(node.test):
                wrong.append(f"{name_of(path)}:{node.lineno} assert")
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{name_of(path)}:{node.lineno} bare except")
    assert wrong == []


def test_files_and_functions_stay_readable():
    wrong = []
    for path in FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            wrong.append(f"{name_of(path)} has {lines} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    wrong.append(f"{name_of(path)}: {node.name} has {length} lines")
    assert wrong == []


OFFENCES = [
    (test_a_room_imports_only_from_rooms_before_it, "types/x.py", "from invertigo.attacks import registry"),
    (test_a_room_imports_only_from_rooms_before_it, "auditing/x.py", "from invertigo.report import write_html"),
    (test_a_room_imports_only_from_rooms_before_it, "data/x.py", "def f():\n    from invertigo import federation"),
    (test_a_room_imports_only_from_rooms_before_it, "models/x.py", "from ..attacks.labels import infer_labels"),
    (test_nothing_private_crosses_a_file, "attacks/x.py", "from invertigo.domains.images import _cost"),
    (test_nobody_seeds_globally, "attacks/x.py", "import torch\ntorch.cuda.manual_seed_all(0)"),
    (test_nobody_seeds_globally, "attacks/x.py", "import numpy as np\nnp.random.seed(0)"),
    (test_every_draw_names_its_generator, "attacks/x.py", "import torch\ntorch.randn_like(x)"),
    (test_nothing_is_unpickled_or_evaluated, "data/x.py", "import torch\ntorch.load('x.pt')"),
    (test_nothing_is_unpickled_or_evaluated, "data/x.py", "from pickle import loads"),
    (test_nothing_is_unpickled_or_evaluated, "data/x.py", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    (test_mistakes_of_users_are_errors_with_words, "data/x.py", "assert x > 0"),
    (test_mistakes_of_users_are_errors_with_words, "data/x.py", "try:\n    f()\nexcept:\n    pass"),
    (test_files_and_functions_stay_readable, "data/x.py", "x = 1\n" * (LONGEST_FILE + 1)),
]


@pytest.mark.parametrize(("rule", "name", "code"), OFFENCES)
def test_each_rule_finds_an_offence(rule, name, code, tmp_path, monkeypatch):
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(code)
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "FILES", [path])
    with pytest.raises(AssertionError, match=re.escape(name.split("/")[0])):
        rule()


def test_there_is_no_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "misc", "common"}
    assert not [name_of(path) for path in SOURCE.rglob("*") if path.stem in drawers]


@pytest.mark.parametrize("module", ["invertigo", "invertigo.cli", "invertigo.report"])
def test_importing_is_light(module):
    code = f"import sys, {module}; print('torch' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "False", f"import {module} imports torch"


@pytest.mark.parametrize("name", invertigo.__all__)
def test_every_public_name_exists_and_is_documented(name):
    assert getattr(invertigo, name).__doc__


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'adult'"):
        invertigo.adult  # noqa: B018


REGISTRIES = [
    ("attacks", "attacks.md"),
    ("defenses", "defenses.md"),
    ("guards", "guard.md"),
    ("domains", "evaluation.md"),
    ("data", "scenarios.md"),
    ("models", "scenarios.md"),
]


@pytest.mark.parametrize(("room", "page"), REGISTRIES, ids=[room for room, _ in REGISTRIES])
def test_everything_registered_is_documented(room, page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    registry = import_module(f"invertigo.{room}").registry
    assert len(registry) > 0
    for name in registry:
        assert f"`{name}`" in text, f"docs/{page} does not mention `{name}`"
        assert (registry[name].__doc__ or "").strip(), f"{room} '{name}' has no docstring"


def test_every_packaged_scenario_is_documented():
    from invertigo.auditing.scenario import scenario_names

    text = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    assert [name for name in scenario_names() if f"`{name}`" not in text] == []


def published() -> list[Path]:
    folders = ["src", "tests", "docs", "examples", "benchmarks", ".ci"]
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return [path for path in [*inside, *ROOT.glob("*.*"), ROOT / "Makefile"] if path.is_file()]


def test_no_path_of_a_machine_is_published():
    roots = "|".join([r"work\b", r"root\b", "home/", "tmp/", "opt/"])
    machine = re.compile(rf"(?<![\w/.:~$)}}*-])/(?:{roots})")
    found = []
    for path in published():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in machine.finditer(text)]
    assert found == []
