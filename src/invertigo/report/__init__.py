"""What a reader gets: one HTML page, `result.json`, a terminal table, an exit code."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invertigo.report.files import begin, ensure_writable, load, load_all, read_records, save, write_json
    from invertigo.report.gate import Gate, Limit, check, parse_limit
    from invertigo.report.html import render_html, write_html
    from invertigo.report.terminal import render, to_text

_HOMES = {
    "Gate": "gate",
    "Limit": "gate",
    "check": "gate",
    "begin": "files",
    "ensure_writable": "files",
    "load": "files",
    "load_all": "files",
    "parse_limit": "gate",
    "read_records": "files",
    "render": "terminal",
    "render_html": "html",
    "save": "files",
    "to_text": "terminal",
    "write_html": "html",
    "write_json": "files",
}
__all__ = [
    "Gate",
    "Limit",
    "begin",
    "check",
    "ensure_writable",
    "load",
    "load_all",
    "parse_limit",
    "read_records",
    "render",
    "render_html",
    "save",
    "to_text",
    "write_html",
    "write_json",
]


def __getattr__(name: str) -> Any:
    """Import at first use, so that a gate in CI reads a result without importing torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'invertigo.report' has no attribute '{name}'")
    return getattr(import_module(f"invertigo.report.{_HOMES[name]}"), name)
