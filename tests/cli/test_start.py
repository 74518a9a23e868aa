from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


HEAVY = {"torch", "numpy", "scipy", "pydantic", "jinja2", "PIL", "safetensors", "flwr", "ray"}


def torch_after(*arguments: str) -> bool:
    """Did this command line import torch?"""
    code = (
        "import sys; from invertigo.cli import main; sys.argv = ['invertigo', *sys.argv[1:]]\n"
        "try: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    return python(code, *arguments).stderr.strip().endswith("True")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from invertigo.cli import main; sys.argv = ['invertigo', '--help']\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = python(code)
    assert "audit" in done.stdout
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "--version",
        "audit --help",
        "list attacks",
        "list models --json",
        "list studies",
        "show demo",
        "audit nonsense",
    ],
)
def test_light_commands_leave_torch_alone(line: str) -> None:
    assert not torch_after(*line.split())


def test_the_gate_leaves_torch_alone(results: Path) -> None:
    assert not torch_after("check", str(results / "leaks"))


def test_torch_is_noticed_when_it_is_imported() -> None:
    assert torch_after("show", "mlp")


def test_importing_the_command_line_imports_no_torch() -> None:
    assert python("import invertigo.cli, sys; sys.exit('torch' in sys.modules)").returncode == 0


def test_the_package_can_be_run_as_a_module():
    done = subprocess.run([sys.executable, "-m", "invertigo", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("invertigo ")


def test_what_is_listed_is_what_is_registered():
    """`python -m invertigo.cli.catalogue` writes the file anew."""
    from importlib.resources import files

    from invertigo.cli.catalogue import KEPT, written

    assert (files("invertigo.cli") / KEPT).read_text(encoding="utf-8") == written()


def test_what_another_package_adds_is_listed(monkeypatch):
    from importlib import metadata

    from invertigo.cli.catalogue import Kind, kept

    assert {entry.name for entry in kept(Kind.attacks)} >= {"dlg", "linear_layer"}
    point = metadata.EntryPoint("mine", "mine:Mine", "invertigo.attacks")
    real = metadata.entry_points
    monkeypatch.setattr(
        metadata, "entry_points", lambda **asked: [point] if asked.get("group") == point.group else real(**asked)
    )
    assert kept(Kind.attacks) == []


def test_scipy_stats_is_not_imported_for_an_audit_without_guards():
    """It takes two thirds of a second."""
    code = "import sys, invertigo.auditing.auditor; print('scipy.stats' in sys.modules, 'torch' in sys.modules)"
    assert python(code).stdout.split() == ["False", "True"]
