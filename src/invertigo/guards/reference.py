"""What honest models of this architecture leak of this client's data: drawn anew, and trained by the client itself."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from invertigo.federation import train_locally
from invertigo.models.building import weights_drawn_by
from invertigo.types import Batch, InvertigoError, Local, Received, Task

DRAWS, MOST_ROUNDS, MOST_EXAMPLES = 2, 12, 512


def honest_models(local: Local, rounds: int) -> list[Received]:
    """Two models drawn as declared, or as their layers are initialised by default; for a later round, one that has had
    `rounds` rounds (at most `MOST_ROUNDS`) of local training on the client's own examples. Nothing that the server sent
    is in them.
    """
    found: list[Received] = []
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(seed)
        model = drawn(local, generator)
        found.append(_received(model))
        if rounds > 0:
            found += _trained(replace(local.task, model=model), local, min(rounds, MOST_ROUNDS), generator)
            return found[-1:]
    return found


def drawn(local: Local, generator: torch.Generator) -> nn.Module:
    """An honest first model."""
    if local.declared.initial is not None:
        return local.declared.initial(generator)
    model = copy.deepcopy(local.task.model)
    with torch.no_grad():
        for module in model.modules():
            _redraw(module, generator)
    return model


def _redraw(module: nn.Module, generator: torch.Generator) -> None:
    """By the module's own law; where it has none, uniformly by the fan-in, and vectors as ones or zeros."""
    own = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(own):
        with weights_drawn_by(generator):
            own()
        return
    for name, parameter in module.named_parameters(recurse=False):
        if not parameter.is_floating_point():
            continue
        if parameter.ndim < 2:
            parameter.copy_(torch.full_like(parameter, float(name == "weight")))
            continue
        bound = max(parameter[0].numel(), 1) ** -0.5
        drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.copy_(((2 * drawn - 1) * bound).to(parameter))


def _trained(task: Task, local: Local, rounds: int, generator: torch.Generator) -> list[Received]:
    batch = local.whole or local.batch
    if batch is None:
        return []
    batch = batch.select(slice(0, min(len(batch), MOST_EXAMPLES)))
    try:
        for _ in range(rounds):
            _step(task, batch, local, generator)
    except InvertigoError:
        return []
    return [_received(task.model)]


def _step(task: Task, batch: Batch, local: Local, generator: torch.Generator) -> None:
    shuffled = batch.select(torch.randperm(len(batch), generator=generator))
    update = train_locally(task, shuffled, local.training, generator=generator)
    step = 1.0 if update.kind == "difference" else -local.training.learning_rate
    named: dict[str, Tensor] = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
    with torch.no_grad():
        for name, tensor in update.tensors.items():
            named[name].add_(step * tensor)
        for name, tensor in (update.buffers or {}).items():
            named[name].copy_(tensor)


def _received(model: nn.Module) -> Received:
    return Received({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
