"""Running a step's model on made-up examples, whatever else the step reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from invertigo.federation.calling import calling
from invertigo.types import RequirementError, Task

ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What models and losses of all kinds raise when an input or a target is not of their form."""


class _Ran(Exception):
    """Carries the model's output out of a step, before its loss is taken."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def for_rows(task: Task, count: int) -> Task:
    """The task for made-up batches of `count` examples: what it knows of the private ones serves them in turn."""
    rows = torch.arange(count)
    return replace(task, known={name: t[rows.to(t.device) % len(t)] for name, t in task.known.items()})


def dry_run(task: Task, inputs: Tensor, *given: Mapping[str, Tensor]) -> Any:
    """What the model returns inside the task's step for `inputs`, with the parameters and buffers `given`.

    Raises: RequirementError when it cannot be run on made-up examples.
    """
    run = calling(task.model, *given)
    if task.step_loss is None:
        return run(inputs)

    def call(*arguments: Any, **named: Any) -> Any:
        raise _Ran(run(*arguments, **named))

    # A loss inside the model reads its targets before anything is returned: one of these will do.
    for target in (torch.zeros(len(inputs), dtype=torch.long), torch.zeros(len(inputs)), torch.zeros(len(inputs), 1)):
        fields = {task.domain.inputs: inputs, task.domain.target: target.to(inputs.device)}
        try:
            for_rows(task, len(inputs)).evaluate(call, fields)
        except _Ran as ran:
            return ran.output
        except ERRORS:
            continue
    try:
        return run(inputs)
    except ERRORS as error:
        raise RequirementError(
            f"The model cannot be run on made-up examples ({type(error).__name__}: {error}), so its layers are not "
            "found. Its step reads more than this kind of data holds: give the domain, or the step that says how."
        ) from error
