"""One forward and backward pass of the probe batch through the received model, without loading it anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from invertigo.federation import simulating
from invertigo.guards.matrices import WEIGHED
from invertigo.guards.own_gradients import own_slopes
from invertigo.guards.uses import Tracer, Use
from invertigo.types import Batch, LayerSignals, Local, Received, Signals, UseSignals


def signals_of(received: Received, local: Local) -> Signals:
    """What `local.batch` shows on the received model; computed once a round when the inspector calls the guards.

    Bias gradients are sums of the slopes over examples, so nothing of the size of batch times parameters is held,
    except for parameters whose use is not understood (`own_gradients`).
    """
    if local.signals is not None:
        return local.signals
    if local.batch is None:
        return Signals(math.nan, None, {}, "there is no probe batch")
    return _capture(received, local, local.batch)


def _capture(received: Received, local: Local, batch: Batch) -> Signals:
    task, model = local.task, local.task.model
    state = _own_state(received, model)
    like = next((t for t in state.values() if t.is_floating_point()), torch.zeros(()))
    fields = dict(batch.to(like.device, like.dtype).fields)
    trained = {n: state[n].requires_grad_() for n, p in model.named_parameters() if _trains(p, state[n])}
    tracer = Tracer(trained)
    tracer.reads(fields)
    outputs: list[Tensor] = []

    def call(*inputs: Tensor, **named: Tensor) -> Tensor:
        outputs.append(functional_call(model, state, inputs, named))
        return outputs[-1]

    try:
        with simulating(model, local.training.mode), torch.enable_grad():
            with tracer:
                loss = task.evaluate(call, fields)
            losses = _each(local, outputs, fields)
            slopes, escaped = _differentiated(loss.sum() * len(batch), tracer.uses, trained)
    except (RuntimeError, ValueError, IndexError) as error:
        return Signals(math.nan, None, {}, f"the probe batch does not pass through the model ({error})")
    known, unseen = own_slopes(local, {**state, **trained}, fields, escaped)
    uses = tuple(
        _signal(use, slope.detach(), len(batch)) for use, slope in zip(tracer.uses, slopes) if slope is not None
    )
    return Signals(
        float(loss.detach().mean()), losses, _layers(model, tracer.uses, slopes, len(batch)),
        uses=(*uses, *known), unseen=unseen,
    )  # fmt: skip


def _trains(parameter: Tensor, received: Tensor) -> bool:
    return parameter.requires_grad and received.is_floating_point()


def _differentiated(
    total: Tensor, uses: list[Use], trained: Mapping[str, Tensor]
) -> tuple[tuple[Tensor | None, ...], list[str]]:
    """Derivatives by every use's output, and the parameters that the loss still depends on otherwise."""
    if not total.requires_grad:
        return tuple(None for _ in uses), []
    wanted = [*(use.output for use in uses), *trained.values()]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    escaped = [name for name, slope in zip(trained, found[len(uses) :]) if slope is not None]
    return found[: len(uses)], escaped


def _signal(use: Use, slope: Tensor, examples: int) -> UseSignals:
    meeting = use.meeting
    arranged = meeting.arrange(slope)
    owner = _owners(arranged, examples)
    if meeting.how in ("entries", "lookup"):
        return UseSignals(use.parameter, meeting.how, arranged, 0.0, owner, meeting.inputs.detach())
    inputs, weight = meeting.inputs.detach(), meeting.weight.detach()
    features = meeting.turned(weight).shape[-1]
    coverage = min(1.0, features * examples / max(inputs.numel(), 1))
    read = inputs.reshape(-1, inputs.shape[-1]) if meeting.how == "rows" else None
    entries = None
    if use.entries is not None or not meeting.natural:
        places = torch.arange(weight.numel()).reshape(weight.shape) if use.entries is None else use.entries
        entries = meeting.turned(places)
    flat = arranged.reshape(-1, arranged.shape[-1])
    gates = (meeting.arrange(use.output.detach()) > 0).reshape(flat.shape)
    bias = None if use.bias is None else use.bias.parameter
    return UseSignals(
        use.parameter, meeting.how, flat, coverage, owner, read, gates, weight.numel(), entries, bias,
        None if use.bias is None else use.bias.entries,
    )  # fmt: skip


def _owners(slopes: Tensor, examples: int) -> Tensor:
    """(unit,) whose each unit is: the first axis as long as the batch, or the outer part of one that holds it."""
    sizes = slopes.shape[:-1] if slopes.ndim > 1 else slopes.shape
    axis = next((a for a, size in enumerate(sizes) if size == examples), None)
    index = torch.arange(examples, device=slopes.device)
    if axis is not None:
        shape = [1] * len(sizes)
        shape[axis] = examples
        return index.reshape(shape).expand(sizes).reshape(-1)
    count = math.prod(sizes)
    return index.repeat_interleave(count // examples) if count % examples == 0 else torch.zeros(count, dtype=torch.long)


def _layers(
    model: nn.Module, uses: Iterable[Use], slopes: Iterable[Tensor | None], examples: int
) -> dict[str, LayerSignals]:
    """The uses by linear and convolutional layers, under the layers' names."""
    named = {f"{n}.weight" if n else "weight": (n, m) for n, m in model.named_modules() if isinstance(m, WEIGHED)}
    found: dict[str, LayerSignals] = {}
    for use, slope in zip(uses, slopes):
        plain = use.entries is None and use.meeting.how in ("rows", "kernels")
        if slope is None or len(slope) != examples or use.parameter not in named or not plain:
            continue
        name, module = named[use.parameter]
        found[name] = LayerSignals(module, use.meeting.inputs.detach(), slope.detach())
    return found


def _own_state(received: Received, model: nn.Module) -> dict[str, Any]:
    """The received values under every name of the model, at the dtype that the model computes in."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    buffers = dict(model.named_buffers())
    return {
        name: received.tensors[name].detach().to(mine.dtype, copy=name in buffers).view(mine.shape)
        if name in received.tensors
        else mine.detach().clone()
        for name, mine in own.items()
    }


def _each(local: Local, outputs: list[Tensor], fields: dict[str, Tensor]) -> Tensor | None:
    """(example,) losses, where the loss of one example can be taken of the model's output."""
    task = local.task
    target = fields.get(task.domain.target)
    if task.step_loss is not None or len(outputs) != 1 or target is None or len(outputs[0]) != len(target):
        return None
    with torch.no_grad():
        each = [task.loss(outputs[0][i : i + 1].detach(), target[i : i + 1]) for i in range(len(target))]
    return torch.stack(each).flatten()
