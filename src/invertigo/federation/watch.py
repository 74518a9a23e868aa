"""Audit a training step that you already have: put it inside `with watch(...) as tape`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from invertigo.domains import Graphs, Images
from invertigo.federation.graph_passes import check_graphs, check_watchable, placed_targets
from invertigo.federation.modes import native_level
from invertigo.federation.recorder import Pass, Recorder, check_recorded, recording
from invertigo.models import graph_step
from invertigo.types import (
    Batch,
    Domain,
    InvalidValueError,
    Knowledge,
    LocalTraining,
    Observation,
    RequirementError,
    Task,
    ThreatLevel,
    Update,
    duplicate,
)


class Tape:
    """What happened inside a `watch` block; empty until the block has ended."""

    def __init__(self, loss_fn: Callable[[Tensor, Tensor], Tensor], domain: Domain | None) -> None:
        self._loss, self._domain = loss_fn, domain
        self._recorded: Recorded | None = None

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

    @cached_property
    def task(self) -> Task:
        """The model as it was before the first step (a copy, which further training leaves alone), loss and domain."""
        recorder, domain = self._done.recorder, self.domain
        model = duplicate(recorder.model)
        with torch.no_grad():
            state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            for name, value in {**recorder.parameters, **recorder.buffers}.items():
                state[name].copy_(value)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in recorder.parameters)
        step = graph_step(self._loss) if isinstance(domain, Graphs) else None
        return Task(model, self._loss, domain, self._done.num_classes, step)

    @property
    def domain(self) -> Domain:
        """The domain given to `watch`; without one, images of the shape and range that the model read."""
        if self._domain is not None:
            return self._domain
        return self._inferred[0]

    @property
    def range_observed(self) -> bool:
        """The domain's range had to be read off the private inputs, so an attacker is told a little too much."""
        return self._domain is None and self._inferred[1]

    @cached_property
    def _inferred(self) -> tuple[Images, bool]:
        return Images.infer(self._done.inputs)

    @property
    def batch(self) -> Batch:
        """The private examples as the model read them; without targets when the loss could not be watched."""
        done, domain = self._done, self.domain
        fields = {domain.inputs: done.inputs}
        if isinstance(domain, Graphs):
            fields |= dict(zip(domain.reads, (done.inputs, *done.others), strict=True))
        if done.targets is not None:
            fields[domain.target] = done.targets
        return Batch(fields)

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
        local = LocalTraining(**{**vars(done.local), "shares_buffers": shares_buffers})
        native = native_level(self.task, local)
        level = native if level is None else ThreatLevel(level)
        _check_level(level, native, public)
        informed = level >= ThreatLevel.STATISTICS
        known = Knowledge(
            level=level,
            num_examples=len(done.inputs),
            labels=done.targets if informed else None,
            batch_statistics=(done.recorder.statistics or None) if informed else None,
            public=public if level >= ThreatLevel.AUXILIARY else None,
        )
        shared = self.buffers_after if shares_buffers else None
        update = Update(done.update.tensors, done.update.kind, shared or None)
        return Observation(self.task, self.parameters, self.buffers, update, local, known)

    @property
    def _done(self) -> Recorded:
        if self._recorded is None:
            raise InvalidValueError("This tape is empty: read it after the `with watch(...)` block has ended.")
        return self._recorded


@dataclass(frozen=True)
class Recorded:
    """A finished recording, read as local training."""

    recorder: Recorder
    inputs: Tensor
    others: tuple[Tensor, ...]
    targets: Tensor | None
    local: LocalTraining
    update: Update
    buffers_after: Mapping[str, Tensor]
    num_classes: int | None


@contextmanager
def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    *,
    domain: Domain | None = None,
) -> Iterator[Tape]:
    """Record the training step inside the block, through hooks only; its numbers come out bit for bit as without.

    One optimizer step (also after several accumulated backward passes) is recorded as the gradient that the
    optimizer used. Several steps are recorded as the parameter difference, which only plain SGD allows.
    Targets are seen when `loss_fn` is a module or when it ends in one of PyTorch's loss functions.

    Raises: InvalidValueError at the end of a block in which no training step of this model and optimizer happened.
    """
    check_watchable(model, domain)
    tape = Tape(loss_fn, domain)
    with recording(model, optimizer, loss_fn) as recorder:
        yield tape
    check_recorded(recorder)
    if isinstance(domain, Graphs):
        check_graphs(recorder.passes)
    tape._recorded = _read(recorder, whole=isinstance(domain, Graphs))


def _read(recorder: Recorder, *, whole: bool) -> Recorded:
    passes = [p for p in recorder.passes if p.step < recorder.steps]
    trained_on = [p for p in passes if p.target is not None]
    passes = trained_on or passes  # a pass whose output met no loss did not train the model
    mode = _mode(passes)
    buffers = {name: b.detach().clone() for name, b in recorder.model.named_buffers()}
    if recorder.steps == 1:
        local, kept = LocalTraining(mode=mode, learning_rate=_number(recorder, "lr")), passes
        update = Update(recorder.gradients, "gradient")
    else:
        local, kept = _several_steps(recorder, passes, mode)
        now = dict(recorder.model.named_parameters())
        update = Update({k: now[k].detach() - v for k, v in recorder.parameters.items()}, "difference")
    inputs = torch.cat([p.inputs for p in kept])
    # What else models of images read need not be one row an example.
    others = tuple(torch.cat(read) for read in zip(*(p.others for p in kept))) if whole else ()
    found = [placed_targets(p) for p in kept]
    targets = None if any(target is None for target in found) else torch.cat([t for t in found if t is not None])
    return Recorded(recorder, inputs, others, targets, local, update, buffers, _classes(kept))


def _several_steps(
    recorder: Recorder, passes: list[Pass], mode: Literal["train", "eval"]
) -> tuple[LocalTraining, list[Pass]]:
    _check_plain_sgd(recorder)
    if [p.step for p in passes] != list(range(recorder.steps)):
        raise RequirementError(
            f"{recorder.steps} optimizer steps were watched over {len(passes)} forward passes; several steps can be "
            "read only when each has exactly one pass. Watch a single step instead."
        )
    period = _period(passes)
    epoch = passes[:period]
    sizes = [len(p.inputs) for p in epoch]
    if any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]:
        raise RequirementError(
            f"The local steps read {sizes} examples; only the last one of an epoch may be smaller than the others. "
            "Watch a single step instead."
        )
    local = LocalTraining(
        mode=mode,
        sends="difference",
        learning_rate=_number(recorder, "lr"),
        momentum=_number(recorder, "momentum"),
        epochs=len(passes) // period,
        batch_size=sizes[0],
    )
    return local, epoch


def _period(passes: list[Pass]) -> int:
    """Steps per epoch: the smallest number after which the same batches come again in the same order."""

    def repeats(period: int) -> bool:
        return all(
            a.inputs.shape == b.inputs.shape and torch.equal(a.inputs, b.inputs)
            for a, b in zip(passes, passes[period:])
        )

    return next(k for k in range(1, len(passes) + 1) if len(passes) % k == 0 and repeats(k))


def _check_plain_sgd(recorder: Recorder) -> None:
    name = type(recorder.optimizer).__name__
    problems = {
        f"the optimizer is {name}": not isinstance(recorder.optimizer, torch.optim.SGD),
        "it began with momentum from earlier steps": recorder.warm,
    }
    for setting in ("weight_decay", "dampening", "nesterov", "maximize"):
        problems[f"it uses {setting}"] = any(any(s[setting]) for s in recorder.settings)
    for setting in ("lr", "momentum"):
        values = {float(v or 0) for s in recorder.settings for v in s[setting]}
        problems[f"its {setting} differs between steps or groups ({sorted(values)})"] = len(values) > 1
    found = [problem for problem, holds in problems.items() if holds]
    if found:
        raise RequirementError(
            f"{recorder.steps} optimizer steps were watched, but {'; '.join(found)}. The difference after "
            "several steps is understood for plain SGD only (one learning rate, optional momentum from rest). "
            "Watch one step: then the gradient is recorded, whatever the optimizer."
        )


def _mode(passes: list[Pass]) -> Literal["train", "eval"]:
    modes = {p.mode for p in passes}
    if len(modes) > 1 or None in modes:
        raise RequirementError(
            "Some BatchNorm or dropout layers ran in training mode and others in inference mode. An audit simulates "
            "the client with model.train() or model.eval() throughout; put all of them into one mode."
        )
    return "train" if modes.pop() == "train" else "eval"


def _number(recorder: Recorder, setting: str) -> float:
    return float(recorder.settings[0][setting][0] or 0.0)


def _classes(passes: list[Pass]) -> int | None:
    first = passes[0]
    if first.target is None or first.target.is_floating_point() or first.target.ndim != 1:
        return None
    return first.width


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
