"""An error of ours becomes one paragraph on stderr and exit code 2; an interruption becomes 130."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import typer

debugging: ContextVar[bool] = ContextVar("debugging", default=False)
USAGE, INTERRUPTED = 2, 130


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with `InvertigoError` told to the user; anything else is a bug and keeps its traceback."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        from invertigo.types.errors import InvertigoError
        from invertigo.types.printable import printable

        try:
            return command(*arguments, **options)
        except InvertigoError as error:
            if debugging.get():
                raise
            typer.echo(f"invertigo: {printable(' '.join(str(error).split()))}", err=True)
            raise typer.Exit(USAGE) from None
        except KeyboardInterrupt:
            typer.echo("invertigo: interrupted before there was a result.", err=True)
            raise typer.Exit(INTERRUPTED) from None

    return run
