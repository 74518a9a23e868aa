"""How many classes a step has, by what its loss reads of the model's output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invertigo.federation import simulating
from invertigo.federation.calling import calling
from invertigo.types import Batch, Task, tensors_in, trainable


def count_classes(task: Task, truth: Batch) -> int | None:
    """Width of the model's output that the loss reads, by a dry run on the first examples; None when that is no
    (batch, class) or the loss reads several of different widths.
    """
    like = next(iter(trainable(task.model).values()), truth[task.domain.inputs])
    few = truth.select(slice(0, 2)).to(like.device, like.dtype)
    outputs: list[Tensor] = []

    model = calling(task.model)

    def call(*inputs: Any, **named: Any) -> Any:
        made = model(*inputs, **named)
        outputs.extend(t for t in tensors_in(made) if t.requires_grad)
        return made

    try:
        with simulating(task.model, "eval"), torch.random.fork_rng(), torch.enable_grad():
            loss = task.evaluate(call, few.fields)
            read = torch.autograd.grad(loss, outputs, allow_unused=True)
    except Exception:
        # The client's own training gives the error with its explanation.
        return None
    widths = {t.shape[1] for t, g in zip(outputs, read) if g is not None and t is not loss and t.ndim == 2}
    return widths.pop() if len(widths) == 1 and max(widths) > 1 else None
