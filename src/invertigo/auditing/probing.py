"""The one gradient that a `doctor` computes, on made-up examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from invertigo.auditing.diagnosis import Finding
from invertigo.federation import train_locally
from invertigo.types import (
    Batch,
    InvertigoError,
    Knowledge,
    LocalTraining,
    Observation,
    Task,
    Update,
    buffers_of,
    trainable,
)

NOT_PROBED = Finding(
    "loss-not-probed", "info", "",
    "The loss could not be evaluated on noise with integer labels, so label leakage was not examined.",
)  # fmt: skip


def probe(task: Task, fields: Mapping[str, Tensor], local: LocalTraining, generator: torch.Generator) -> Observation:
    """One real gradient on these examples; without values where the loss cannot be evaluated on them."""
    batch = Batch(fields)
    try:
        update = train_locally(task, batch, local, generator=generator)
    except (InvertigoError, RuntimeError, ValueError, TypeError, IndexError):
        update = Update({}, "gradient")
    parameters = trainable(task.model) if update.tensors else {}
    return Observation(task, parameters, buffers_of(task.model), update, local, Knowledge(num_examples=len(batch)))
