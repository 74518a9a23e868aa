"""Which neurons of a first layer matter for an example: the others are silent, whatever the loss may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invertigo.attacks.dry_run import dry_run
from invertigo.attacks.exact.first_layer import FirstLinear
from invertigo.federation.calling import calling
from invertigo.federation.functional import simulating
from invertigo.types import Observation

EDGE = 1e-4
"""How near to zero, in units of a usual output, an output of the layer is on both sides of an activation's kink."""


@dataclass(frozen=True)
class Neurons:
    """How single examples come out of the first layer, and which of its neurons the rest of the model listens to.

    `targets` (choice, ...) are those an example can have, None where they cannot be listed.
    """

    observation: Observation
    first: FirstLinear
    mode: str
    targets: Tensor | None

    def at(self, inputs: Tensor, outputs: Tensor, numbers: Tensor) -> Tensor:
        """(row, neuron) derivative of a batch's loss where the layer gives `outputs` (row, neuron), with targets of
        these numbers (row,)."""
        assert self.targets is not None
        task, targets = self.observation.task, self.targets[numbers.to(self.targets.device)]

        def loss(call: Callable[..., Any], images: Tensor) -> Tensor:
            fields = {task.domain.inputs: images, task.domain.target: targets}
            return task.evaluate(call, fields)

        return self._through(inputs, loss, outputs)

    def outputs(self, inputs: Tensor) -> Tensor:
        """(row, neuron) outputs of the layer, in float64."""
        sent = self.observation.parameters
        weight = sent[self.first.weight_name].flatten(1).double()
        bias = 0.0 if self.first.bias_name is None else sent[self.first.bias_name].double()
        return inputs @ weight.T + bias

    def silent(self, inputs: Tensor, reach: Tensor | None = None) -> Tensor:
        """(row, neuron) whether no change of a neuron's output changes what the model says, there and near it.

        Args:
            reach: (row, neuron) how far each output may have been from today's while the client trained.
        """
        outputs = self.outputs(inputs)
        near = EDGE * outputs.square().mean(1, keepdim=True).sqrt()
        near = near if reach is None else torch.maximum(near, reach)
        low, same, high = (self.pulled(inputs, outputs + sign * near) == 0 for sign in (-1, 0, 1))
        return low & same & high

    def pulled(self, inputs: Tensor, outputs: Tensor, seed: int = 0) -> Tensor:
        """(row, neuron) derivative of a random functional of the model's output, whatever the loss may be."""
        generator = torch.Generator().manual_seed(seed)

        def functional(_call: Callable[..., Any], images: Tensor) -> Tensor:
            outcome = dry_run(self.observation.task, images, self.observation.buffers, self.observation.parameters)
            pulls = [(o * torch.randn(o.shape, generator=generator).to(o)).sum() for o in _floating(outcome)]
            return torch.stack(pulls).sum()

        return self._through(inputs, functional, outputs)

    def _through(self, inputs: Tensor, value: Callable[..., Tensor], outputs: Tensor) -> Tensor:
        task = self.observation.task
        images = self.first.images(inputs).to(self.observation.parameters[self.first.weight_name].dtype)
        module = self.first.module
        own = module.forward

        def forward(input: Tensor) -> Tensor:
            made = outputs.to(input).reshape(len(input), *own(input[:1]).shape[1:])
            seen.append(made.detach().requires_grad_())
            return seen[-1].clone()  # an in-place activation may follow

        seen: list[Tensor] = []
        module.forward = forward  # a hook would run the layer first, which is most of the work
        try:
            with simulating(task.model, self.mode), torch.enable_grad():
                call = calling(task.model, self.observation.buffers, self.observation.parameters)
                (derivative,) = torch.autograd.grad(value(call, images), seen, allow_unused=True)
        finally:
            del module.forward
        return torch.zeros_like(seen[0]).flatten(1).double() if derivative is None else derivative.flatten(1).double()


def _floating(output: Any) -> list[Tensor]:
    """All floating-point tensors of a model's output, in order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _floating(part)]
