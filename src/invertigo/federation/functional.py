"""The client's training as a pure function of its data, so that an attacker can differentiate through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from invertigo.federation.calling import calling, eager, plain_attributes_kept
from invertigo.types import LocalTraining, Task

Fields = Mapping[str, Tensor]


@dataclass(frozen=True)
class Simulation:
    """What a simulated client sends (`update`), and the batch statistics its BatchNorm layers saw in the first step."""

    update: dict[str, Tensor]
    statistics: dict[str, tuple[Tensor, Tensor]]


def functional_update(
    task: Task,
    parameters: Fields,
    buffers: Fields,
    local: LocalTraining,
    num_examples: int,
    *,
    transformable: bool = True,
    statistics: bool = False,
) -> Callable[[Fields], Simulation]:
    r"""The update as a differentiable function $g$ of the batch: $\nabla_\theta L(\theta; x)$ or $\theta_T - \theta_0$.

    Local steps are unrolled with their graph, so gradients flow from the parameter difference to the data.
    Dropout is simulated as its expectation (off): the adversary does not know the client's masks.

    Args:
        transformable: use `torch.func.grad`, which `torch.func.vmap` and `torch.compile` accept. False builds the
            same values with `torch.autograd.grad`, which costs less for one large network.
        statistics: also return each BatchNorm layer's input mean and biased variance (channel,).

    Returns: a function of the batch's named tensors. Call it inside `simulating(task.model, local.mode)`.
    """
    steps = local.steps(num_examples)
    if not transformable:
        parameters = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}

    def loss(values: Fields, fields: Fields) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        call = calling(task.model, buffers, values)
        if not statistics:
            return task.evaluate(call, fields), {}
        with batchnorm_statistics(task.model) as seen:
            value = task.evaluate(call, fields)
        return value, dict(seen)

    gradient = _transformed(loss) if transformable else _taped(loss)

    def simulate(fields: Fields) -> Simulation:
        if local.sends == "gradient":
            return Simulation(*gradient(parameters, fields))
        values, momentum, first = dict(parameters), {}, {}
        for number, part in enumerate(steps):
            step, seen = gradient(values, {name: tensor[part] for name, tensor in fields.items()})
            first = seen if number == 0 else first
            momentum = {k: g + local.momentum * momentum[k] if number else g for k, g in step.items()}
            values = {k: v - local.learning_rate * momentum[k] for k, v in values.items()}
        return Simulation({k: values[k] - parameters[k] for k in values}, first)

    return simulate


def _transformed(loss: Callable) -> Callable:
    return torch.func.grad(loss, has_aux=True)


def _taped(loss: Callable) -> Callable:
    def gradient(values: Fields, fields: Fields) -> tuple[dict[str, Tensor], dict]:
        value, seen = loss(values, fields)
        grads = torch.autograd.grad(value, list(values.values()), create_graph=True, materialize_grads=True)
        return dict(zip(values, grads)), seen

    return gradient


@contextmanager
def simulating(model: nn.Module, mode: str) -> Iterator[None]:
    """Put `model` into the client's mode for simulation, and restore every module's own state afterwards.

    Inside, BatchNorm in training mode normalises with the batch's statistics but does not update its buffers,
    dropout is off, and attention uses the differentiable kernel (the fused ones have no second derivative).
    """
    modes = {module: module.training for module in model.modules()}
    tracking = {m: m.track_running_stats for m in model.modules() if isinstance(m, _BatchNorm)}
    try:
        model.train(mode == "train")
        for module in modes:
            if isinstance(module, _DropoutNd):
                module.training = False
        for module in tracking:
            # In training mode PyTorch then normalises by the batch and leaves the running statistics alone.
            module.track_running_stats = tracking[module] and mode != "train"
        with sdpa_kernel(SDPBackend.MATH), eager(model), plain_attributes_kept(model):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for module, tracks in tracking.items():
            module.track_running_stats = tracks


@contextmanager
def batchnorm_statistics(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collect (mean, biased variance) per channel at the input of every BatchNorm layer run inside the block."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def record(name: str) -> Callable:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            dims = [d for d in range(inputs[0].ndim) if d != 1]
            variance, mean = torch.var_mean(inputs[0], dims, unbiased=False)
            seen[name] = (mean, variance)

        return hook

    handles = [
        module.register_forward_pre_hook(record(name))
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
