"""Scaling tensors down to a length that they may not exceed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from invertigo.types import InvalidValueError, Step

Tensors = Mapping[str, Tensor]


def clipped(rows: Tensors, norm: float) -> dict[str, Tensor]:
    r"""Each row $g_r \min(1, C / \lVert g_r \rVert_2)$, its length taken over all names together; differentiable.

    Args:
        rows: tensors (row, *layer) by name.
        norm: C > 0.
    """
    square = torch.stack([t.flatten(1).square().sum(1) for t in rows.values()]).sum(0)
    factor = (norm / square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()).clamp(max=1)
    return {name: t * factor.view(-1, *[1] * (t.ndim - 1)) for name, t in rows.items()}


def combined(gradient: Tensors, each: Tensors, step: Step) -> float:
    """What the sum of per-example gradients is multiplied by to give the loss's: 1/B for a mean, 1 for a sum.

    `Task.loss` is a mean by contract, but a user's own step loss may be a sum; the step's gradient tells which.
    """
    size = len(step.batch)
    if size == 1:
        return 1.0
    total = {name: t.sum(0) for name, t in each.items()}
    dot = sum(float((gradient[k].double() * total[k].double()).sum()) for k in total)
    square = sum(float(total[k].double().square().sum()) for k in total)
    return 1.0 if square > 0 and dot / square > (1 + 1 / size) / 2 else 1 / size


def check_norm(norm: float, setting: str) -> None:
    """Raises: InvalidValueError unless the bound is positive."""
    if not norm > 0:
        raise InvalidValueError(
            f"{setting} is {norm}; the length that a contribution is clipped to must be positive. A bound of zero or "
            "less would send nothing. Take about the median length of what clients send undefended (often 1 to 10)."
        )
