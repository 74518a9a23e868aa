"""The gradients of a first linear layer, and what single examples can be told of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from invertigo.attacks.exact.alone import Alone, candidate_targets
from invertigo.attacks.exact.first_layer import FirstLinear
from invertigo.attacks.exact.peeling import Found, Layer, peel
from invertigo.attacks.exact.reparametrised import weight_gradient
from invertigo.federation.modes import mode_matters
from invertigo.types import Observation, RequirementError, rounding

EXPLAINED = 1e-3
"""Share of the layer's gradients left over up to which a batch of unknown size counts as rebuilt as a whole."""
MANY = 16
"""Examples from which on a batch counts as large."""


def layer_gradients(observation: Observation, first: FirstLinear) -> Layer:
    """The layer's gradients in float64. Raises: RequirementError when the update does not hold them."""
    sent = observation.update.tensors
    if first.bias_name is None or first.bias_name not in sent or first.weight_name not in sent:
        raise RequirementError(
            f"The update holds no gradients of both weight and bias of '{first.name}'; without the bias gradient the "
            "image is known up to an unknown factor only."
        )
    bias = sent[first.bias_name].double()
    if not observation.local.linear:
        raise RequirementError(
            "The client's recipe (Adam, weight decay, another penalty, clipping by value, or parameter groups) sends "
            "no plain sum of gradients, so the ratio of weight and bias tells no image."
        )
    sign = 1.0
    if observation.update.kind == "difference":
        sign = -1 / observation.local.learning_rate
    if not bool(bias.any()):
        raise RequirementError(f"The bias gradient of '{first.name}' is zero everywhere, so no ratio can be taken.")
    weight = weight_gradient(observation, first.name, first.weight_name, bias)
    return Layer(sign * weight, sign * bias, rounding(sent[first.weight_name]))


def peeled(
    observation: Observation,
    first: FirstLinear,
    layer: Layer,
    size: int,
    plausible: Callable[[Tensor], Tensor],
    singles: bool,
    scaled: bool = False,
) -> tuple[list[Found], Layer]:
    """Peel; when as many examples as the batch holds leave a rest, some were mixtures: ask more neurons to agree."""
    targets = candidate_targets(observation)
    assert targets is not None
    total, labels = norm_of(layer), list(range(len(targets)))
    for agreeing in (2 if layer.eps < 1e-12 and not scaled else 3, 8, 24):
        rest = replace(layer)
        alone = Alone.of(observation, first, targets, size)
        found = peel(rest, size, labels, plausible, alone, agreeing=agreeing, singles=singles, scaled=scaled)
        if sum(f.times for f in found) < size or norm_of(rest) < 3 * layer.eps**0.5 * total:
            return found, rest
    return [], layer


def separable(observation: Observation) -> bool:
    """An example's part of the update can be computed without the others."""
    model, local = observation.task.model, observation.local
    if local.sends == "difference" and (observation.num_examples is None or steps_of(observation) > 1):
        return False
    if any(m.running_mean is None for m in model.modules() if isinstance(m, _BatchNorm)):
        return False
    return local.mode == "eval" or not mode_matters(observation.task)


def steps_of(observation: Observation) -> int:
    """Local steps that the client took."""
    return len(observation.local.steps(observation.num_examples or 1))


def norm_of(layer: Layer) -> float:
    """Length of both gradients together."""
    return float(torch.sqrt(layer.weight.square().sum() + layer.bias.square().sum()))


def is_whole(observation: Observation, count: int, objective: float) -> bool:
    """The answer holds the whole batch. Where its size is a guess, only what is left of the update tells that."""
    size = observation.num_examples
    return objective <= EXPLAINED if size is None else count >= size


def is_enough(found: int, possible: int) -> bool:
    """Whether simulating single examples, which takes minutes on a large batch, is left out."""
    return found >= possible or (possible > MANY and 2 * found >= possible)
