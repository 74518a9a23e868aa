"""`invertigo doctor`: what leaks exactly, without running an attack."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def doctor(
    factory: Annotated[
        str, typer.Argument(metavar="MODULE:FACTORY", help="A function that returns your model, or a model by name.")
    ],
    input_shape: Annotated[
        str, typer.Option(help="Shape of one example: channels,height,width; of a graph nodes,columns.")
    ] = "3,32,32",
    classes: Annotated[int, typer.Option(min=2, help="Classes that the model tells apart.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a batch.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say which layers leak, without attacking."""
    shape = _shape(input_shape)
    from torch.nn import CrossEntropyLoss

    from invertigo.auditing import doctor as examine
    from invertigo.models import resolve

    model = resolve(factory, input_shape=shape, num_classes=classes)
    findings = examine(model, CrossEntropyLoss(), batch_size, input_shape=shape)
    typer.echo(json.dumps(findings.as_dict(), indent=2) if as_json else findings)


def _shape(text: str) -> tuple[int, ...]:
    from invertigo.types.errors import ConfigurationError

    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ConfigurationError(f"--input-shape is {text!r}; give positive sizes such as 3,32,32.")
    return tuple(int(part) for part in parts)
