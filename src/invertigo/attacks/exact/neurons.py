"""One example at a time through the model, seen from the output of its first layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from invertigo.attacks.exact.first_layer import FirstLinear
from invertigo.federation.functional import simulating
from invertigo.types import Observation

EDGE = 1e-4
"""How near to zero, in units of a usual output, an output of the layer is on both sides of an activation's kink."""
CHUNK = 2048


@dataclass(frozen=True)
class Alone:
    """Derivatives of single examples' losses by the outputs of the first layer."""

    observation: Observation
    first: FirstLinear
    mode: str

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """(row, neuron) derivative of each candidate's own loss, for layer inputs (row, feature) with labels (row,)."""
        return self._derivatives(inputs, labels, None)

    def at(self, inputs: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        """The same where the layer gives `outputs` (row, neuron) instead of what it makes of `inputs`."""
        return self._derivatives(inputs, labels, outputs)

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

        def functional(call: Callable[..., Any], images: Tensor) -> Tensor:
            pulls = [(o * torch.randn(o.shape, generator=generator).to(o)).sum() for o in _floating(call(images))]
            return torch.stack(pulls).sum()

        return self._through(inputs, functional, outputs)

    def _derivatives(self, inputs: Tensor, labels: Tensor, outputs: Tensor | None) -> Tensor:
        task = self.observation.task

        def loss(call: Callable[..., Any], images: Tensor) -> Tensor:
            return len(labels) * task.evaluate(call, {task.domain.inputs: images, task.domain.target: labels})

        return self._through(inputs, loss, outputs)

    def _through(self, inputs: Tensor, value: Callable[..., Tensor], outputs: Tensor | None) -> Tensor:
        task = self.observation.task
        images = self.first.images(inputs).to(self.observation.parameters[self.first.weight_name].dtype)
        module, given = self.first.module, outputs
        own = module.forward

        def forward(read: Tensor) -> Tensor:
            if given is None:
                made = own(read)
            else:
                made = given.to(read).reshape(len(read), *own(read[:1]).shape[1:])
            seen.append(made.detach().requires_grad_())
            return seen[-1]

        def call(*args: Tensor, **named: Tensor) -> Any:
            values = {**self.observation.buffers, **self.observation.parameters}
            return functional_call(task.model, values, args, named)

        seen: list[Tensor] = []
        module.forward = forward  # a hook would run the layer first, which is most of the work
        try:
            with simulating(task.model, self.mode), torch.enable_grad():
                (derivative,) = torch.autograd.grad(value(call, images), seen)
        finally:
            del module.forward
        return derivative.flatten(1).double()


def _floating(output: Any) -> list[Tensor]:
    """All floating-point tensors of a model's output, in order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _floating(part)]


def with_every_label(alone: Alone, inputs: Tensor, labels: list[int]) -> Tensor:
    """(candidate, label, neuron) derivatives of every candidate with every label."""
    target = torch.tensor(labels, device=inputs.device)
    parts = []
    for some in inputs.split(max(1, CHUNK // len(labels))):
        both = alone(some.repeat_interleave(len(labels), 0), target.repeat(len(some)))
        parts.append(both.unflatten(0, (len(some), len(labels))))
    return torch.cat(parts)
