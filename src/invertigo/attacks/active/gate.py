"""Between which values of its input an activation passes a gradient on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from invertigo.attacks.active.passage import widened
from invertigo.federation.functional import simulating
from invertigo.types import RequirementError, Task

REACH, STEPS = 16.0, 256
FLAT = 1e-9


@dataclass(frozen=True)
class Gate:
    """A row passes a gradient on while its output lies in (`low`, `high`); infinite where it always does."""

    low: float
    high: float

    @property
    def closes_above(self) -> bool:
        """A row can be shut by a large output as well as by a small one, so that it can stand for one bin alone."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def find_gate(task: Task, layer: str, consumer: str) -> Gate:
    """What the function between a linear `layer` and the weight `consumer` of the next one does, measured by a ramp
    that takes the place of the layer's output.

    Raises: RequirementError when outputs of every size pass a gradient on (sigmoid, GELU, leaky ReLU), so that no row
        can be silent.
    """
    ramp = torch.linspace(-REACH, REACH, STEPS + 1, dtype=torch.float64)
    slope = _behind(task, layer, consumer, ramp).diff().abs()
    passing = (slope > FLAT).nonzero()[:, 0]
    if not len(passing) or len(passing) == STEPS:
        raise RequirementError(
            f"The function after '{layer}' passes a gradient on whatever its input, so every row of the "
            "layer mixes all examples of the batch; rows can be silent only under ReLU and its bounded kin."
        )
    first, last = int(passing[0]), int(passing[-1])
    low = -math.inf if first == 0 else ramp[first].item()
    high = math.inf if last == STEPS - 1 else ramp[last + 1].item()
    return Gate(low, high)


def _behind(task: Task, layer: str, consumer: str, ramp: Tensor) -> Tensor:
    """(step,) what the first unit of the layer hands to the next linear layer, for each of its outputs."""
    model, shape = task.model, task.domain.example_shapes()[task.domain.inputs]
    names = {id(p): n for n, p in model.named_parameters()}
    reader = next(m for m in model.modules() if isinstance(m, nn.Linear) and names[id(m.weight)] == consumer)
    probe = torch.zeros(len(ramp), *shape, dtype=torch.float64, device=reader.weight.device)
    seen: list[Tensor] = []

    def replace(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return ramp.to(output)[:, None].expand_as(output)

    handles = [
        model.get_submodule(layer).register_forward_hook(replace),
        reader.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0])),
    ]
    try:
        with simulating(model, "eval"), torch.no_grad():
            functional_call(model, widened(model, {}), (probe,))
    finally:
        for handle in handles:
            handle.remove()
    return seen[0].flatten(1)[:, 0].cpu()
