"""The honest client: it trains on its private batch as PyTorch would, and sends what it was told to send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from invertigo.federation.calling import copied
from invertigo.federation.defended import DefendedRound
from invertigo.federation.descent import SETTINGS, check_groups, shaped
from invertigo.federation.functional import batchnorm_statistics
from invertigo.types import (
    Batch,
    Defense,
    DefenseTrace,
    InvalidValueError,
    LocalTraining,
    MismatchError,
    ParameterGroup,
    Task,
    Update,
    buffers_of,
    duplicate,
    trainable,
)


@dataclass(frozen=True)
class Trained:
    """What local training produced: the message, and what the BatchNorm layers saw in the first step.

    `statistics[module]` is the (mean, biased variance) at the input of that BatchNorm module. They are not sent;
    `observe` hands them to adversaries who are assumed to know them. `trace` tells what the defense did, and stays here
    too: it compares the release with the raw update, which no adversary has.
    """

    update: Update
    statistics: Mapping[str, tuple[Tensor, Tensor]]
    trace: DefenseTrace | None = None


def train_locally(
    task: Task,
    batch: Batch,
    local: LocalTraining,
    *,
    generator: torch.Generator | None = None,
    defense: Defense | None = None,
    secret: torch.Generator | None = None,
    number: int = 0,
) -> Update:
    r"""The client's message: $\nabla_\theta L(\theta; x, y)$, or $\theta_T - \theta_0$ after local SGD steps.

    Training happens on a copy, so the model's parameters, buffers, gradients and modes stay as they are, and the
    global random state is put back. Parameters that the loss does not reach get zeros.

    Args:
        batch: the private examples, as the model reads them; they follow the model's device and floating dtype.
        generator: seeds dropout; without it, dropout draws what the global generator would draw next.
        defense: what the client does to its batch, its gradients and its update. The task must be the one that
            `defense.prepare` returned.
        secret: of the defense's randomness; without it, the operating system seeds a generator of its own.
        number: of this round, which defenses with a schedule ask for.

    Raises: InvalidValueError when the loss is not finite or a label is outside the classes; MismatchError when the
        model cannot read the batch.
    """
    return train(task, batch, local, generator=generator, defense=defense, secret=secret, number=number).update


def train(
    task: Task,
    batch: Batch,
    local: LocalTraining,
    *,
    generator: torch.Generator | None = None,
    defense: Defense | None = None,
    secret: torch.Generator | None = None,
    number: int = 0,
) -> Trained:
    """`train_locally`, with the batch statistics of the first step and the defense's trace beside the message."""
    before = trainable(task.model)
    if not before:
        raise InvalidValueError(
            "The model has no trainable parameters (all have requires_grad=False), so a client has nothing to send."
        )
    batch = _follow(batch, next(iter(before.values())))
    _check_labels(batch, task, task.num_classes)
    model = duplicate(task.model)
    model.train(local.mode == "train")
    shield = None if defense is None else DefendedRound(defense, task, model, local, secret, number)
    with _random_state_restored(before, generator), batchnorm_statistics(model) as seen, torch.enable_grad():
        if local.sends == "gradient":
            _take_gradient(task, model, batch, local, before, shield, 0)
            statistics, tensors = _detached(seen), _gradients(model)
        else:
            statistics = _descend(task, model, batch, local, before, seen, shield)
            tensors = {name: after - before[name] for name, after in trainable(model).items()}
        tensors, trace = (tensors, None) if shield is None else shield.update(tensors)
    buffers = buffers_of(model) if local.shares_buffers else None
    return Trained(Update(tensors, local.sends, buffers or None), statistics, trace)


def _descend(
    task: Task,
    model: nn.Module,
    batch: Batch,
    local: LocalTraining,
    before: Mapping[str, Tensor],
    seen: Mapping[str, tuple[Tensor, Tensor]],
    shield: DefendedRound | None,
) -> dict[str, tuple[Tensor, Tensor]]:
    steps = local.steps(len(batch))
    check_groups(local, before, len(steps))
    optimizer = _optimizer(model, local)
    first: dict[str, tuple[Tensor, Tensor]] = {}
    for number, part in enumerate(steps):
        optimizer.zero_grad()
        _take_gradient(task, model, batch.select(part), local, before, shield, number)
        first = _detached(seen) if number == 0 else first
        for group in optimizer.param_groups:
            group["lr"] = group["rates"][number] if group["rates"] else group["lr"]
        optimizer.step()
    return first


def _optimizer(model: nn.Module, local: LocalTraining) -> torch.optim.Optimizer:
    """PyTorch's own, with a group for each of the recipe's and one for the rest; `rates` is the group's schedule."""
    mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grouped = {name for group in local.groups for name in group.names}
    rest = ParameterGroup(names=tuple(name for name in mine if name not in grouped))
    groups = []
    for group in (*local.groups, rest):
        found = {key: own if (own := getattr(group, key)) is not None else getattr(local, key) for key in SETTINGS}
        rates = group.learning_rates if group.learning_rates is not None else local.learning_rates
        if group.learning_rate is not None and group.learning_rates is None:
            rates = ()
        groups.append({"params": [mine[name] for name in group.names], "rates": rates, **_named(local, found)})
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[local.optimizer]
    return kind([group for group in groups if group["params"]], lr=local.learning_rate)


def _named(local: LocalTraining, settings: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch's names for them."""
    wanted = ("momentum", "dampening", "nesterov") if local.optimizer == "sgd" else ("betas", "eps")
    found = {key: settings[key] for key in (*wanted, "maximize", "weight_decay")}
    return {"lr": settings["learning_rate"], **found}


def _take_gradient(
    task: Task,
    model: nn.Module,
    batch: Batch,
    local: LocalTraining,
    before: Mapping[str, Tensor],
    shield: DefendedRound | None,
    number: int,
) -> None:
    """Leave the gradient that this step goes along in the model's parameters."""
    if shield is None:
        _accumulate(task, model, batch, local, before)
        return
    used = shield.batch(batch, number)
    honest = _aside(task, model, batch, local, before) if used is not batch else None
    _accumulate(task, model, used, local, before)
    raw = _gradients(model)
    released = shield.gradient(raw, honest or raw, used, number)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.grad = released[name].detach().clone()


def _accumulate(task: Task, model: nn.Module, batch: Batch, local: LocalTraining, before: Mapping[str, Tensor]) -> None:
    """The recipe's gradient of a batch: over its micro-batches, with its penalties, clipped as it says."""
    if local.sends == "difference" or local.plain:
        _backward(task, model, batch)
    else:
        for part, weight in local.parts(len(batch)):
            _backward(task, model, batch.select(part), weight)
    slopes, values = _gradients(model), trainable(model)
    if not (local.l2 or local.proximal or local.clip_norm or local.clip_value):
        return
    for name, slope in shaped(local, slopes, values, before).items():
        model.get_parameter(name).grad = slope


def _aside(
    task: Task, model: nn.Module, batch: Batch, local: LocalTraining, before: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The gradient of another batch at the same parameters, leaving the model and the random state alone."""
    copied = duplicate(model)
    with torch.random.fork_rng(_cuda_devices(model.parameters())):
        _accumulate(task, copied, batch, local, before)
    return _gradients(copied)


def _backward(task: Task, model: nn.Module, batch: Batch, weight: float = 1.0) -> None:
    def call(*inputs: Any, **named: Any) -> Any:
        output = _forward(model, batch, inputs, named)
        if task.num_classes is None and isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1:
            _check_labels(batch, task, output.shape[1])
        return output

    loss = task.evaluate(call, batch.fields)
    if not torch.isfinite(loss).all():
        raise InvalidValueError(
            f"The client's loss is {loss.detach().flatten()[0].item()} on a step of {len(batch)} examples, so its "
            "update would be NaN. Check the data's range and the model's weights, or lower LocalTraining.learning_rate."
        )
    if not loss.requires_grad:
        raise InvalidValueError(
            "The loss does not depend on any trainable parameter, so the update would be empty. "
            "Check that the loss is computed from the model's output and that nothing detaches it."
        )
    (loss if weight == 1.0 else weight * loss).backward()


def _forward(model: nn.Module, batch: Batch, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.fields.items()}
    try:
        return model(*map(copied, inputs), **{name: copied(value) for name, value in named.items()})
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InvalidValueError(
            f"BatchNorm in training mode cannot normalise a local step of {len(batch)} example whose features are one "
            "value per channel: there is no variance. Use at least two examples a step, mode='eval', or GroupNorm."
        ) from error
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise MismatchError(
            f"The model cannot read this batch ({shapes}): {error}. Check the shape of the data and the model's input."
        ) from error


def _check_labels(batch: Batch, task: Task, classes: int | None) -> None:
    labels = batch.fields.get(task.domain.target)
    if classes is None or task.step_loss is not None or labels is None or labels.ndim != 1:
        return
    if labels.is_floating_point() or labels.dtype == torch.bool:
        return
    outside = labels[(labels < 0) | (labels >= classes)]
    if any(not replace(task, num_classes=classes).ignores(int(label)) for label in outside.unique()):
        raise InvalidValueError(
            f"Label {outside[0].item()} is outside the model's {classes} classes (0..{classes - 1}). "
            "Number the classes from 0, or give the model as many outputs as there are classes."
        )


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def _detached(seen: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (mean.detach().clone(), variance.detach().clone()) for name, (mean, variance) in seen.items()}


def _follow(batch: Batch, parameter: Tensor) -> Batch:
    return batch.to(parameter.device, parameter.dtype if parameter.is_floating_point() else None)


def _cuda_devices(tensors: Iterable[Tensor]) -> list[int]:
    return sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})


@contextmanager
def _random_state_restored(parameters: Mapping[str, Tensor], generator: torch.Generator | None) -> Iterator[None]:
    """Fork the generators that dropout draws from; seed them from `generator` when there is one."""
    devices = _cuda_devices(parameters.values())
    with torch.random.fork_rng(devices):
        if generator is not None:
            drawn = int(torch.randint(2**62, (), generator=generator, device=generator.device))
            for own in (torch.default_generator, *(torch.cuda.default_generators[d] for d in devices)):
                own.manual_seed(drawn)
        yield
