"""What a single rebuilt example would have added to the first layer's gradient: the proof that it was in the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invertigo.attacks.classifier import find_classifier
from invertigo.attacks.exact.first_layer import FirstLinear
from invertigo.attacks.labels import infer_labels, tells_classes
from invertigo.attacks.reduction import Reduction, reduction_of
from invertigo.attacks.targets import float_targets
from invertigo.federation.calling import calling
from invertigo.federation.functional import simulating
from invertigo.types import Observation, RequirementError


@dataclass(frozen=True)
class Alone:
    """Derivative of each candidate's own loss by the first layer's output, times what that loss counts in the client's
    batch and the number of examples there (which is 1 for a plain mean).

    `targets` (choice, ...) are those an example can have; candidates come with the number of one.
    """

    observation: Observation
    first: FirstLinear
    targets: Tensor
    reduction: Reduction
    weight: Tensor

    @classmethod
    def of(cls, observation: Observation, first: FirstLinear, targets: Tensor, size: int) -> Alone:
        """For a batch of `size` examples whose targets are among `targets`."""
        like = observation.parameters[first.weight_name]
        one = first.inputs(torch.full((1, *first.shape), 0.5, dtype=torch.float64, device=like.device))

        def gradients(numbers: Tensor) -> Tensor:
            return _derivative(observation, first, one.expand(len(numbers), -1), targets[numbers.to(targets.device)])

        reduction = reduction_of(lambda numbers: gradients(numbers).cpu(), len(targets))
        weight = _weight(observation, targets, reduction, size)
        return cls(observation, first, targets, reduction, weight.to(like.device))

    def __call__(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """(candidate, neuron) for candidates (candidate, feature) with the numbers of their targets."""
        batch = _derivative(self.observation, self.first, inputs, self.targets[numbers])
        together = self.reduction.shares(numbers.cpu()).to(batch)
        own = batch / together[:, None].clamp_min(1e-300)
        return torch.where(together[:, None] > 0, own, 0.0) * self.weight[numbers][:, None]


def _derivative(observation: Observation, first: FirstLinear, inputs: Tensor, targets: Tensor) -> Tensor:
    """(row, neuron) derivative of the loss of this batch by the first layer's output, in float64."""
    task, like = observation.task, observation.parameters[first.weight_name]
    images = first.images(inputs).to(like.dtype)
    outputs: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # an in-place activation may follow

    handle = first.module.register_forward_hook(hook)
    try:
        with simulating(task.model, observation.local.mode), torch.enable_grad():
            call = calling(task.model, observation.buffers, observation.parameters)
            loss = task.evaluate(call, {task.domain.inputs: images, task.domain.target: targets})
            (derivative,) = torch.autograd.grad(loss, outputs)
    finally:
        handle.remove()
    return derivative.flatten(1).double()


def _weight(observation: Observation, targets: Tensor, reduction: Reduction, size: int) -> Tensor:
    """(choice,) what an example's own loss counts in the client's batch, times `size`."""
    plain = torch.ones(len(targets), dtype=torch.float64)
    if not reduction.normalised:
        return plain * size
    if reduction.plain:
        return plain
    counts = _counts(observation, targets)
    if counts is None:
        return plain  # up to one factor, which peeling can leave free
    own = reduction.weights.cpu()
    return size * own / (counts.cpu().double() @ own).clamp_min(1e-300)


def _counts(observation: Observation, targets: Tensor) -> Tensor | None:
    """(choice,) how often each target occurs in the batch, where that is known or follows."""
    known = observation.knowledge.labels
    if known is not None:
        return torch.stack([(known == target).reshape(len(known), -1).all(1).sum() for target in targets])
    try:
        return infer_labels(observation).counts
    except RequirementError:
        return None


def candidate_targets(observation: Observation) -> Tensor | None:
    """(choice, ...) targets that one example can have; None where they cannot be listed, as in a regression."""
    known, like = observation.knowledge.labels, next(iter(observation.parameters.values()))
    if known is not None:
        return known.unique(dim=0)
    if tells_classes(observation):
        return torch.arange(observation.task.num_classes or output_count(observation), device=like.device)
    form = float_targets(observation)
    return None if form is None else form.choices(like)


def output_count(observation: Observation) -> int:
    """Width of what the loss reads: in so many independent ways two examples can be mixed."""
    known = observation.knowledge.labels
    counted = observation.task.num_classes
    counted = counted or find_classifier(observation, dict(observation.parameters), width=None).logits.shape[-1]
    return counted if known is None else min(counted, len(known.unique(dim=0)))
