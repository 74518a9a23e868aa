"""Audit a training step that you already have: put it inside `with watch(...) as tape`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from invertigo.domains import Graphs
from invertigo.federation.block_checks import check_all_trained, check_hooks, check_recorded
from invertigo.federation.graph_passes import check_graphs, check_watchable
from invertigo.federation.modes import native_level
from invertigo.federation.penalty import penalty_removed
from invertigo.federation.randomness import RandomState
from invertigo.federation.reading import Recorded, read
from invertigo.federation.recorder import Recorder, recording
from invertigo.types import (
    Batch,
    Domain,
    InvalidValueError,
    Knowledge,
    LocalTraining,
    Observation,
    StepLoss,
    Task,
    ThreatLevel,
    Update,
)


class Tape:
    """What happened inside a `watch` block; empty until the block has ended."""

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self._recorded: Recorded | None = None

    def note(self, **fields: Tensor) -> None:
        """Record tensors with a row an example that the loss reads, for the latest forward pass; call it in the block.

        Raises: InvalidValueError outside the block or before a forward pass.
        """
        if self._recorder is None or not self._recorder.passes or self._recorded is not None:
            raise InvalidValueError("Note what the loss reads inside the `watch` block, after the forward pass.")
        self._recorder.passes[-1].notes |= {name: tensor.detach().clone() for name, tensor in fields.items()}

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The trained parameters before the first step, by name."""
        return self._done.recorder.parameters

    @property
    def buffers(self) -> Mapping[str, Tensor]:
        """The buffers before the first step, by name."""
        return self._done.recorder.buffers

    @property
    def buffers_after(self) -> Mapping[str, Tensor]:
        """The buffers after the last step, by name; a client that shares its buffers sends these."""
        return self._done.buffers_after

    @property
    def local(self) -> LocalTraining:
        """The local training that the block carried out."""
        return self._done.local

    @property
    def update(self) -> Update:
        """The gradient that the optimizer used, after any clipping; the parameter difference after several steps."""
        return self._done.update

    @property
    def task(self) -> Task:
        """The model as it was before the first step (a copy, which further training leaves alone), loss and domain."""
        return self._done.task

    @property
    def domain(self) -> Domain:
        """The domain given to `watch`; without one, images of the shape and range that the model read."""
        return self._done.task.domain

    @property
    def range_observed(self) -> bool:
        """The domain's range had to be read off the private inputs, so an attacker is told a little too much."""
        return self._done.range_observed

    @property
    def batch(self) -> Batch:
        """The private examples as the model read them, and what else the step read of them."""
        return self._done.batch

    @property
    def randomness(self) -> tuple[RandomState, ...]:
        """The state of the random generators before each forward pass, with which `replay` repeats dropout."""
        return self._done.randomness

    @property
    def assumed(self) -> tuple[str, ...]:
        """Fields of the batch beside the private ones, which whoever attacks is taken to know."""
        return self._done.assumed

    @property
    def unwatched(self) -> tuple[str, ...]:
        """Parameters that got gradients, but that the watched optimizer does not hold: another one may train them."""
        return tuple(self._done.recorder.unwatched)

    def observation(
        self,
        *,
        level: ThreatLevel | int | None = None,
        shares_buffers: bool = False,
        public: Batch | None = None,
    ) -> Observation:
        """What an adversary on rung `level` (default: the client's own) holds of exactly this step.

        From rung 2 up it knows the labels and the batch statistics of the first step; rung 4 needs `public`.

        Raises: InvalidValueError for a rung on which the step would have had to happen otherwise: observe that with
        `observe(tape.task, tape.batch, tape.local, level=...)`, which repeats the step.
        """
        done = self._done
        local = replace(done.local, shares_buffers=shares_buffers)
        native = native_level(self.task, local)
        level = native if level is None else ThreatLevel(level)
        _check_level(level, native, public)
        informed = level >= ThreatLevel.STATISTICS
        known = Knowledge(
            level=level,
            num_examples=len(done.batch),
            labels=done.batch.fields.get(self.domain.target) if informed else None,
            batch_statistics=(done.statistics or None) if informed else None,
            public=public if level >= ThreatLevel.AUXILIARY else None,
        )
        shared = self.buffers_after if shares_buffers else None
        update = replace(done.update, buffers=shared or None)
        return penalty_removed(Observation(self.task, self.parameters, self.buffers, update, local, known))

    @property
    def _done(self) -> Recorded:
        if self._recorded is None:
            raise InvalidValueError("This tape is empty: read it after the `with watch(...)` block has ended.")
        return self._recorded


@contextmanager
def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[..., Tensor] | None = None,
    *,
    domain: Domain | None = None,
    step: StepLoss | None = None,
    sends: Literal["gradient", "difference"] | None = None,
) -> Iterator[Tape]:
    """Record the training step inside the block, through hooks only; its numbers come out bit for bit as without.

    One optimizer step (also after several accumulated backward passes) is recorded as the gradient that the
    optimizer used; several steps, or one with `sends="difference"`, as the parameter difference after SGD, Adam or
    AdamW. At the end the step is repeated from what was seen of it, and refused unless that gives the recorded
    gradients to rounding: what an audit simulates is then what happened.

    Args:
        loss_fn: the loss, `loss_fn(output, target)`. Without one, the model returns it or PyTorch's own are called.
        step: `step(call, fields) -> loss` for any other step; `call` stands for the model, `call.parameters` are its
            parameters, `fields` holds what the model read and what `tape.note(...)` recorded.

    Raises: InvalidValueError at the end of a block in which no training step of this model and optimizer happened;
        RequirementError when the step cannot be repeated, with the line to write.
    """
    check_watchable(model, domain)
    check_hooks(model, optimizer)
    tape = Tape()
    with recording(model, optimizer, loss_fn) as recorder:
        tape._recorder = recorder
        yield tape
    check_recorded(recorder)
    check_all_trained(recorder)
    if isinstance(domain, Graphs):
        check_graphs(recorder.passes)
    tape._recorded = read(recorder, loss_fn, domain, step, sends)


def _check_level(level: ThreatLevel, native: ThreatLevel, public: Batch | None) -> None:
    wrong = {
        "the block watched one client; an aggregate needs several": level is ThreatLevel.AGGREGATE,
        f"the step itself already gives rung {int(native)}": ThreatLevel.UPDATE <= level < native,
        "the step ran in training mode and shared no statistics": level >= ThreatLevel.INFERENCE_MODE > native,
        "a malicious server must craft the model first": level is ThreatLevel.MALICIOUS,
        "it needs public=Batch(...)": level is ThreatLevel.AUXILIARY and public is None,
    }
    reasons = [reason for reason, holds in wrong.items() if holds]
    if reasons:
        raise InvalidValueError(
            f"This step cannot be observed on rung {int(level)}: {'; '.join(reasons)}. `observe(tape.task, tape.batch, "
            "tape.local, level=...)` repeats the step as that rung would have it."
        )
