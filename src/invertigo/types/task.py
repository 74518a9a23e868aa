"""What the client trains: a model, a loss and the kind of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from invertigo.types.domain import Domain
from invertigo.types.wrappers import computing

StepLoss = Callable[[Callable[..., Any], Mapping[str, Tensor]], Tensor]
"""`(call, fields) -> scalar`: a training step as a function of the model and of a batch's named tensors."""


@dataclass(frozen=True)
class Task:
    """A model, its loss and its domain: everything about the training step that is public.

    `loss(prediction, target)` returns a scalar, the mean over the batch. A training step whose loss is not of
    that form passes `step_loss(call, fields)` instead (by default `domain.step(loss)` where the domain has one):
    `call` runs the model (with whatever parameters are being tried), `fields` are the named tensors of the batch.
    `model` is kept without the wrappers around it (`computing`).
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    domain: Domain
    num_classes: int | None = None
    step_loss: StepLoss | None = None
    prepared: Mapping[str, Tensor] = field(default_factory=dict)
    """Public tensors that a defense's `prepare` made for its other hooks, such as the weights of a trained part."""

    known: Mapping[str, Tensor] = field(default_factory=dict)
    """Fields of the batch that the step reads and whoever attacks is taken to know: a second input of the model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", computing(self.model))
        step = getattr(self.domain, "step", None)
        if self.step_loss is None and step is not None:
            object.__setattr__(self, "step_loss", step(self.loss))

    def ignores(self, label: int) -> bool:
        """The loss takes this class number although the model has no such output, as `ignore_index` is taken."""
        if self.num_classes is None or self.step_loss is not None:
            return False
        try:
            self.loss(torch.zeros(1, self.num_classes), torch.tensor([label]))
        except (RuntimeError, ValueError, TypeError, LookupError, AssertionError):
            return False
        return True

    def evaluate(self, call: Callable[..., Tensor], fields: Mapping[str, Tensor]) -> Tensor:
        """The scalar loss of one batch, with `call` standing for the model."""
        if self.known:
            fields = {**self.known, **fields}
        if self.step_loss is not None:
            return self.step_loss(call, fields)
        return self.loss(call(fields[self.domain.inputs]), fields[self.domain.target])
