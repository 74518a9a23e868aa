"""The command `invertigo`. Thin: every command calls the room that does the work, and imports torch only there."""

from __future__ import annotations


def main() -> None:
    """Entry point of the command line."""
    from invertigo.cli.app import app

    app(prog_name="invertigo")
