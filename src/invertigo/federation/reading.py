"""A finished recording, read as local training: which loss and which recipe reproduce what was seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from invertigo.domains import Graphs, Images
from invertigo.federation.fitting import Fit, fit_difference, fit_gradient
from invertigo.federation.graph_passes import placed_targets
from invertigo.federation.passes import Pass
from invertigo.federation.randomness import RandomState
from invertigo.federation.recorder import Recorder
from invertigo.federation.watched_step import Expression, adaptor, expressions, fields_of
from invertigo.models import graph_step
from invertigo.types import (
    Batch,
    Domain,
    LocalTraining,
    RequirementError,
    StepLoss,
    Task,
    Update,
    duplicate,
)

Loss = Callable[..., Tensor]
Sends = Literal["gradient", "difference"]


@dataclass(frozen=True)
class Recorded:
    """What a watched block amounts to.

    `randomness` is the state of the generators before each forward pass that trained the model, `statistics` those
    of the batch in the first of them. `assumed` names fields of the batch that the model reads beside the private ones,
    and that whoever attacks is taken to know.
    """

    recorder: Recorder
    task: Task
    batch: Batch
    local: LocalTraining
    update: Update
    buffers_after: Mapping[str, Tensor]
    range_observed: bool
    randomness: tuple[RandomState, ...]
    statistics: Mapping[str, tuple[Tensor, Tensor]]
    assumed: tuple[str, ...] = ()


def read(
    recorder: Recorder, loss: Loss | None, domain: Domain | None, step: StepLoss | None, sends: Sends | None
) -> Recorded:
    """The loss and the recipe that reproduce the recorded gradients to rounding.

    Raises: RequirementError when none does, with the line to write; InvertigoError when the step cannot be read.
    """
    passes = [p for p in recorder.passes if p.step < recorder.steps]
    passes = [p for p in passes if p.target is not None or p.notes] or passes  # what met no loss trained nothing
    sends = sends or ("gradient" if recorder.steps == 1 else "difference")
    found, idle = _read(recorder, passes, loss, domain, step, sends)
    if not idle:
        return found
    try:  # examples whose gradient is no part of the update were not sent, and are not what an audit is about
        return _read(recorder, [p for k, p in enumerate(passes) if k not in idle], loss, domain, step, sends)[0]
    except RequirementError:
        return found


def _read(
    recorder: Recorder,
    passes: Sequence[Pass],
    loss: Loss | None,
    domain: Domain | None,
    step: StepLoss | None,
    sends: Sends,
) -> tuple[Recorded, tuple[int, ...]]:
    """The reading of these passes, and which of them gave nothing to the update."""
    kept = passes if sends == "gradient" else _epoch(recorder, passes)
    domain, observed = (domain, False) if domain is not None else Images.infer(_joined([p.inputs for p in kept]))
    mode, model, missed = _mode(passes), _as_sent(recorder), []
    for expression in _expressions(kept, loss, domain, step):
        try:
            with warnings.catch_warnings():  # a wrong guess at the target may broadcast
                warnings.simplefilter("ignore")
                found, idle = _try(expression, recorder, passes, kept, loss, domain, mode, model, sends)
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            missed.append(_failure(error))
            continue
        return replace(found, range_observed=observed), idle
    raise RequirementError(
        f"This step cannot be repeated from what was seen of it ({_reason(missed)}), so its audit would solve another "
        f"problem. Say how its loss is made: {adaptor(kept[0], domain)}."
    )


def _expressions(
    passes: Sequence[Pass], loss: Loss | None, domain: Domain, step: StepLoss | None
) -> Iterator[Expression]:
    if step is None and isinstance(domain, Graphs) and loss is not None:
        placed = [placed_targets(p) for p in passes]
        if all(t is not None for t in placed):
            yield Expression(graph_step(loss), (graph_step(loss),), tuple(t for t in placed if t is not None))
        return
    yield from expressions(passes, loss, domain, step)


def _try(
    expression: Expression,
    recorder: Recorder,
    passes: Sequence[Pass],
    kept: Sequence[Pass],
    loss: Loss | None,
    domain: Domain,
    mode: Literal["train", "eval"],
    model: nn.Module,
    sends: Sends,
) -> tuple[Recorded, tuple[int, ...]]:
    batches = _batches(expression, kept, domain)
    whole = Batch({name: _joined([b[name] for b in batches]) for name in batches[0].fields})
    assumed = tuple(n for n in whole.fields if n not in _attacked(domain))
    known = {name: whole[name] for name in assumed}
    task = Task(model, loss or no_loss, domain, _classes(kept, whole, domain), expression.step, known=known)
    fit = fit_gradient if sends == "gradient" else fit_difference
    found: Fit = fit(recorder, task, expression, passes, batches, whole, mode)
    buffers = {name: b.detach().clone() for name, b in recorder.model.named_buffers()}
    states = tuple(p.state for p in passes)
    read = Recorded(
        recorder, found.task, whole, found.local, found.update, buffers, False, states, passes[0].statistics, assumed
    )
    return read, found.idle


def _batches(expression: Expression, kept: Sequence[Pass], domain: Domain) -> list[Batch]:
    """The fields of each pass."""
    targets = expression.targets or (None,) * len(kept)
    extra = expression.fields or ({},) * len(kept)
    return [Batch({**fields_of(p, domain, t), **more}) for p, t, more in zip(kept, targets, extra)]


def _epoch(recorder: Recorder, passes: Sequence[Pass]) -> Sequence[Pass]:
    """The passes of one epoch: the smallest number of steps after which the same batches come again in order."""
    if recorder.steps == 1 and len(passes) > 1:
        raise RequirementError(
            f"One optimizer step was watched over {len(passes)} forward passes (accumulation), which is read as the "
            "gradient that the optimizer used, not as a difference. Leave sends='difference' out."
        )
    if [p.step for p in passes] != list(range(recorder.steps)):
        raise RequirementError(
            f"{recorder.steps} optimizer steps were watched over {len(passes)} forward passes; several steps can be "
            "read only when each has exactly one pass. Watch a single step instead."
        )

    def repeats(period: int) -> bool:
        return all(
            a.inputs.shape == b.inputs.shape and torch.equal(a.inputs, b.inputs)
            for a, b in zip(passes, passes[period:])
        )

    period = next(k for k in range(1, len(passes) + 1) if len(passes) % k == 0 and repeats(k))
    return passes[:period]


def _as_sent(recorder: Recorder) -> nn.Module:
    """A copy of the model as it was before the first step, which further training leaves alone."""
    model = duplicate(recorder.model)
    with torch.no_grad():
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, value in {**recorder.everything, **recorder.buffers}.items():
            state[name].copy_(value)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in recorder.parameters)
        parameter.grad = None
    return model


def _attacked(domain: Domain) -> set[str]:
    """Fields that an attack rebuilds or infers."""
    return {*domain.example_shapes(), *getattr(domain, "reads", ()), domain.inputs, domain.target}


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    try:
        return torch.cat(list(tensors))
    except RuntimeError as error:
        shapes = [tuple(t.shape) for t in tensors]
        raise RequirementError(
            f"The passes of this step read examples of different shapes ({shapes}), which make no batch. Pad or resize "
            "them to one shape, or watch a single pass."
        ) from error


def _classes(passes: Sequence[Pass], whole: Batch, domain: Domain) -> int | None:
    target = whole.fields.get(domain.target)
    if target is None or target.is_floating_point() or passes[0].width is None:
        return None
    return passes[0].width if passes[0].target is None or passes[0].target.ndim == 1 else None


def _mode(passes: Sequence[Pass]) -> Literal["train", "eval"]:
    modes = {p.mode for p in passes}
    if len(modes) > 1 or None in modes:
        raise RequirementError(
            "Some BatchNorm or dropout layers ran in training mode and others in inference mode. An audit simulates "
            "the client with model.train() or model.eval() throughout; put all of them into one mode."
        )
    return "train" if modes.pop() == "train" else "eval"


def no_loss(_output: Tensor, _target: Tensor) -> Tensor:
    """Stands where a step has no loss of output and target. Raises: RequirementError."""
    raise RequirementError("This step has no loss of output and target; it is a function of model and batch.")


def _failure(error: Exception) -> str:
    """Why an attempt failed: a fit says it itself, anything else is the user's own code that did not run again."""
    if type(error) is ValueError:
        return str(error)
    return f"running it again raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _reason(missed: Sequence[str]) -> str:
    return missed[0] if missed else "no loss of its output was seen"
