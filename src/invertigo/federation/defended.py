"""A defense at work on a client: its hooks are called in order, and what they did is measured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from invertigo.federation.descent import Descent
from invertigo.federation.functional import simulating
from invertigo.types import (
    Batch,
    Defense,
    DefenseTrace,
    InvalidValueError,
    LocalTraining,
    MismatchError,
    Step,
    Task,
    check_fits,
    trainable,
)

Tensors = Mapping[str, Tensor]


class DefendedRound:
    """Calls the hooks of one defense in one round of local training, and keeps what the client would have sent without.

    Without a `secret` generator the defense draws from one that the operating system seeds, as a deployed client must.
    """

    def __init__(
        self,
        defense: Defense,
        task: Task,
        model: nn.Module,
        local: LocalTraining,
        secret: torch.Generator | None,
        number: int,
    ) -> None:
        self.defense, self.task, self.model, self.local, self.number = defense, task, model, local, number
        self._secret = secret or fresh_generator(next(model.parameters()).device)
        self._facts: dict[str, float] = {}
        self._raw: dict[str, Tensor] = {}
        self._descent: Descent | None = None
        self._start: dict[str, Tensor] = {}
        self._along: dict[str, Tensor] = {}
        self._last: Step | None = None

    def batch(self, batch: Batch, step: int) -> Batch:
        """What local step `step` trains on."""
        self._last = self._step(batch, step)
        return self.defense.on_batch(batch, self._last)

    def gradient(self, raw: Tensors, honest: Tensors, used: Batch, step: int) -> dict[str, Tensor]:
        """What local step `step` descends along; `honest` is the gradient of the batch before `on_batch` changed it."""
        self._last = self._step(used, step)
        self._remember(honest)
        released = self.defense.on_gradient(raw, self._last)
        check_fits(released, raw, f"gradient that defense '{self.defense.name}' returned")
        return dict(released)

    def update(self, update: Tensors) -> tuple[dict[str, Tensor], DefenseTrace]:
        """What is sent, and what the defense did to it in this round."""
        if self._last is None:
            raise MismatchError("A round without a local step has no update to defend.")
        sent = self.defense.on_update(update, self._last)
        check_fits(sent, update, f"update that defense '{self.defense.name}' returned")
        return dict(sent), trace(
            self.defense.name, self._raw, sent, bytes=self.defense.wire_bytes(sent), facts=self._facts
        )

    def _step(self, batch: Batch, step: int) -> Step:
        return Step(
            task=self.task,
            model=self.model,
            batch=batch,
            local=self.local,
            number=step,
            round=self.number,
            generator=self._secret,
            per_example=lambda: per_example_gradients(self.task, self.model, batch),
            loss=trial_loss(self.task, self.model, batch, self.local.mode),
            facts=self._facts,
        )

    def _remember(self, honest: Tensors) -> None:
        """Follow the steps as they would be sent without a defense, along the parameters that were really visited."""
        if self.local.sends == "gradient":
            self._raw = {name: tensor.clone() for name, tensor in honest.items()}
            return
        if self._descent is None:
            self._descent, self._start = Descent(self.local), dict(trainable(self.model))
            self._along = dict(self._start)
        self._along = self._descent.step(self._along, honest)
        self._raw = {name: self._along[name] - self._start[name] for name in honest}


def fresh_generator(device: torch.device) -> torch.Generator:
    """A generator that the operating system seeds."""
    generator = torch.Generator(device)
    generator.seed()
    return generator


def trace(name: str, raw: Tensors, sent: Tensors, *, bytes: int, facts: Mapping[str, float]) -> DefenseTrace:
    """Compare a release with the raw update, entry by entry, in float64."""
    cosines = {key: _cosine(raw[key], sent[key]) for key in raw}
    entries = sum(t.numel() for t in raw.values())
    before, after = _flat(raw), _flat(sent)
    return DefenseTrace(
        defense=name,
        cosine=_cosine(before, after),
        changed=sum(int((raw[k] != sent[k]).sum()) for k in raw) / entries,
        visible=sum(int(t.count_nonzero()) for t in sent.values()) / entries,
        norm_ratio=(after.norm() / before.norm()).item() if before.any() else 1.0,
        layer_cosines=cosines,
        bytes=bytes,
        raw_bytes=sum(t.numel() * t.element_size() for t in raw.values()),
        facts=dict(facts),
    )


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors.values()])


def _cosine(left: Tensor, right: Tensor) -> float:
    a, b = left.detach().double().flatten(), right.detach().double().flatten()
    length = a.norm() * b.norm()
    return (a @ b / length).item() if length > 0 else 0.0


def per_example_gradients(task: Task, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Each example's own gradient, (batch, *layer) by parameter name, in the mode that the model is in.

    Raises: InvalidValueError when BatchNorm mixes the examples, so that no example has a gradient of its own.
    """
    mixing = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training]
    if mixing:
        raise InvalidValueError(
            f"This defense bounds what each example contributes, but BatchNorm ('{mixing[0]}') in training mode lets "
            "every example into every other's gradient, so no bound on one of them holds. Replace BatchNorm by "
            "GroupNorm (models take norm='group'), or train with local.mode='eval'."
        )
    parameters = trainable(model)
    fixed = {k: v.detach() for k, v in (*model.named_parameters(), *model.named_buffers()) if k not in parameters}

    def loss(values: Tensors, one: Tensors) -> Tensor:
        def call(*inputs: Tensor, **named: Tensor) -> Tensor:
            return functional_call(model, {**fixed, **values}, inputs, named)

        return task.evaluate(call, {name: tensor[None] for name, tensor in one.items()})

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0), randomness="different")
    with _unwatched(model):
        return each(parameters, dict(batch.fields))


@contextmanager
def _unwatched(model: nn.Module) -> Iterator[None]:
    """Keep what a defense tries out from those who record what BatchNorm sees of the client's real steps."""
    hooks = {m: m._forward_pre_hooks for m in model.modules() if isinstance(m, _BatchNorm)}
    try:
        for module in hooks:
            module._forward_pre_hooks = OrderedDict()
        yield
    finally:
        for module, own in hooks.items():
            module._forward_pre_hooks = own


def trial_loss(task: Task, model: nn.Module, batch: Batch, mode: str) -> Callable[[Tensors], Tensor]:
    """The loss of a batch at other parameters, in float64: differences between trials drown in float32's rounding."""

    def loss(parameters: Tensors) -> Tensor:
        state: dict[str, Any] = dict(model.named_parameters()) | dict(model.named_buffers()) | dict(parameters)
        wide = {k: v.detach().double() if v.is_floating_point() else v for k, v in state.items()}

        def call(*inputs: Tensor, **named: Tensor) -> Tensor:
            return functional_call(model, wide, inputs, named)

        with torch.no_grad(), simulating(model, mode), _unwatched(model):
            return task.evaluate(call, batch.to(dtype=torch.float64).fields)

    return loss
