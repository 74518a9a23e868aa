"""One forward and backward pass of the probe batch through the received model, without loading it anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from invertigo.federation import simulating
from invertigo.guards.matrices import WEIGHED
from invertigo.types import Batch, LayerSignals, Local, Received, Signals


def signals_of(received: Received, local: Local) -> Signals:
    """What `local.batch` shows on the received model; computed once a round when the inspector calls the guards.

    Bias gradients are sums of the slopes over examples, so nothing of the size of batch times parameters is held.
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
    seen: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    outputs: list[Tensor] = []
    handles = [m.register_forward_hook(_record(n, seen)) for n, m in model.named_modules() if isinstance(m, WEIGHED)]

    def call(*inputs: Tensor, **named: Tensor) -> Tensor:
        outputs.append(functional_call(model, state, inputs, named))
        return outputs[-1]

    try:
        with simulating(model, local.training.mode), torch.enable_grad():
            loss = task.evaluate(call, fields)
            losses = _each(local, outputs, fields)
            total = loss.sum() * len(batch)
            tops = [output for _, _, output in seen.values()]
            slopes = torch.autograd.grad(total, tops, allow_unused=True) if tops and total.requires_grad else ()
    except (RuntimeError, ValueError, IndexError) as error:
        return Signals(math.nan, None, {}, f"the probe batch does not pass through the model ({error})")
    finally:
        for handle in handles:
            handle.remove()
    layers = {
        name: LayerSignals(module, inputs.detach(), slope.detach())
        for (name, (module, inputs, _)), slope in zip(seen.items(), slopes)
        if slope is not None and len(slope) == len(batch)
    }
    return Signals(float(loss.detach().mean()), losses, layers)


def _own_state(received: Received, model: nn.Module) -> dict[str, Any]:
    """The received values under every name of the model, at the dtype that the model computes in."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: received.tensors[name].detach().to(mine.dtype, copy=name in dict(model.named_buffers()))
        if name in received.tensors
        else mine.detach().clone()
        for name, mine in own.items()
    }


def _record(name: str, seen: dict[str, tuple[nn.Module, Tensor, Tensor]]) -> Callable[..., Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        top = output if output.requires_grad else output.detach().requires_grad_()
        seen[name] = (module, inputs[0], top)
        # A copy goes on, so that layers that work in place do not overwrite what the slopes are taken of.
        return top.clone()

    return hook


def _each(local: Local, outputs: list[Tensor], fields: dict[str, Tensor]) -> Tensor | None:
    """(example,) losses, where the loss of one example can be taken of the model's output."""
    task = local.task
    target = fields.get(task.domain.target)
    if task.step_loss is not None or len(outputs) != 1 or target is None or len(outputs[0]) != len(target):
        return None
    with torch.no_grad():
        each = [task.loss(outputs[0][i : i + 1].detach(), target[i : i + 1]) for i in range(len(target))]
    return torch.stack(each).flatten()
