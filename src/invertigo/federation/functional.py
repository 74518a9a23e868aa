"""The client's training as a pure function of its data, so that an attacker can differentiate through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from invertigo.federation.calling import calling, eager, plain_attributes_kept
from invertigo.federation.descent import Descent, check_groups, shaped
from invertigo.federation.randomness import SEED, Averaged, RandomState, cuda_devices, reseed, seeded
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
    randomness: Sequence[RandomState] = (),
    seed: int = SEED,
) -> Callable[[Fields], Simulation]:
    r"""The update as a differentiable function $g$ of the batch: $\nabla_\theta L(\theta; x)$ or $\theta_T - \theta_0$.

    Local steps are unrolled with their graph, so gradients flow from the parameter difference to the data.
    Dropout is simulated as its expectation (off): the adversary does not know the client's masks.

    Args:
        transformable: use `torch.func.grad`, which `torch.func.vmap` and `torch.compile` accept. False builds the
            same values with `torch.autograd.grad`, which costs less for one large network.
        statistics: also return each BatchNorm layer's input mean and biased variance (channel,).
        randomness: state of the global generators before each forward pass in turn; without it, every update is
            computed from `seed`, so that the function is one function.

    Returns: a function of the batch's named tensors. Call it inside `simulating(task.model, local.mode)`.
    """
    steps = local.steps(num_examples)
    check_groups(local, parameters, len(steps))
    drawn, devices = iter(randomness), cuda_devices(parameters.values())
    if not transformable:
        parameters = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}

    def loss(values: Fields, fields: Fields) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        call = Call(calling(task.model, buffers, values), values, drawn)
        if not statistics:
            return task.evaluate(call, fields), {}
        with batchnorm_statistics(task.model) as seen:
            value = task.evaluate(call, fields)
        return value, dict(seen)

    one = _transformed(loss) if transformable else _taped(loss)

    def gradient(values: Fields, fields: Fields) -> tuple[dict[str, Tensor], dict]:
        if local.plain or local.sends == "difference":
            return one(values, fields)
        total, first = {}, {}
        for number, (part, weight) in enumerate(local.parts(num_examples)):
            slopes, seen = one(values, _select(fields, part))
            first = first if number else seen
            total = {k: weight * g + total[k] if number else weight * g for k, g in slopes.items()}
        return total, first

    def simulate(fields: Fields) -> Simulation:
        nonlocal drawn
        drawn = iter(randomness)
        reseed(devices, seed)
        fields = {**task.known, **fields}
        if local.sends == "gradient":
            slopes, first = gradient(parameters, fields)
            return Simulation(shaped(local, slopes, parameters, parameters), first)
        values, descent, first = dict(parameters), Descent(local), {}
        for number, part in enumerate(steps):
            slopes, seen = gradient(values, _select(fields, part))
            first = first if number else seen
            values = descent.step(values, shaped(local, slopes, values, parameters))
        return Simulation({k: values[k] - parameters[k] for k in values}, first)

    return simulate


class Call:
    """Stands for the model in a step: runs it with the parameters that are being tried, which are `parameters`."""

    def __init__(self, run: Callable[..., Any], parameters: Fields, randomness: Iterator[RandomState]) -> None:
        self.parameters, self._run, self._randomness = parameters, run, randomness

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """What the model returns for these inputs."""
        state = next(self._randomness, None)
        if state is not None:
            state.restore()
        return self._run(*inputs, **named)


def _select(fields: Fields, part: slice) -> dict[str, Tensor]:
    return {name: tensor[part] for name, tensor in fields.items()}


def _transformed(loss: Callable) -> Callable:
    return torch.func.grad(loss, has_aux=True)


def _taped(loss: Callable) -> Callable:
    def gradient(values: Fields, fields: Fields) -> tuple[dict[str, Tensor], dict]:
        value, seen = loss(values, fields)
        grads = torch.autograd.grad(value, list(values.values()), create_graph=True, materialize_grads=True)
        return dict(zip(values, grads)), seen

    return gradient


@contextmanager
def simulating(model: nn.Module, mode: str, *, drawing: bool = False) -> Iterator[None]:
    """Put `model` into the client's mode for simulation, and restore every module's own state afterwards.

    Inside, BatchNorm in training mode normalises with the batch's statistics but does not update its buffers,
    dropout is off wherever it is called from, other draws start from one fixed seed, and attention uses the
    differentiable kernel (the fused ones have no second derivative). With `drawing`, dropout is drawn as the client
    draws it; the global generators are put back afterwards either way.
    """
    modes = {module: module.training for module in model.modules()}
    tracking = {m: m.track_running_stats for m in model.modules() if isinstance(m, _BatchNorm)}
    try:
        model.train(mode == "train")
        for module in modes:
            if isinstance(module, _DropoutNd) and not drawing:
                module.training = False
        for module in tracking:
            # In training mode PyTorch then normalises by the batch and leaves the running statistics alone.
            module.track_running_stats = tracking[module] and mode != "train"
        with ExitStack() as stack:
            for context in (eager(model), plain_attributes_kept(model), seeded(model.parameters())):
                stack.enter_context(context)
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if not drawing:
                stack.enter_context(Averaged())
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
