"""Read a batch's statistics out of the BatchNorm buffers that a client shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from invertigo.federation.calling import calling
from invertigo.federation.functional import simulating
from invertigo.types import Observation, RequirementError

Named = Mapping[str, Tensor]
Statistics = dict[str, tuple[Tensor, Tensor]]


def statistics_from_buffers(observation: Observation) -> Statistics:
    r"""The batch's (mean, biased variance) at each BatchNorm layer's input, from the buffers before and after.

    $\mu = (r' - (1-m)\,r)/m$ with the layer's own momentum $m$ (or $1/t$ at step $t$ when its momentum is None), and
    likewise the unbiased variance, made biased by $(n-1)/n$ with $n$ = examples × positions at that layer.

    Only one local step can be read: after several, the buffers hold a mixture.

    Raises: RequirementError when the buffers were not shared, did not move, or moved several times, or when the
        number of examples is unknown.
    """
    after, before = observation.update.buffers, observation.buffers
    if not after:
        raise RequirementError("This client shares no buffers, so the batch statistics cannot be read from them.")
    if observation.num_examples is None:
        raise RequirementError("The variance needs the number of examples; give Knowledge(num_examples=...).")
    positions = _positions(observation)
    found: Statistics = {}
    for name, module in observation.task.model.named_modules():
        if not isinstance(module, _BatchNorm) or module.running_mean is None or name not in positions:
            continue
        key = f"{name}." if name else ""
        weight = _weight(name, module, before, after, key)
        mean = _innovation(before[f"{key}running_mean"], after[f"{key}running_mean"], weight)
        unbiased = _innovation(before[f"{key}running_var"], after[f"{key}running_var"], weight)
        n = observation.num_examples * positions[name]
        found[name] = (mean, unbiased * (n - 1) / n)
    return found


def _innovation(before: Tensor, after: Tensor, weight: float) -> Tensor:
    return before + (after - before) / weight


def _weight(name: str, module: _BatchNorm, before: Named, after: Named, key: str) -> float:
    counter = f"{key}num_batches_tracked"
    moved = int(after[counter] - before[counter]) if counter in after and counter in before else 1
    if moved != 1:
        why = "it computed in inference mode" if moved == 0 else "several batches are mixed in them"
        raise RequirementError(
            f"The buffers of BatchNorm layer '{name}' were updated {moved} times ({why}); the statistics of one batch "
            "can be read only after exactly one update."
        )
    weight = 1 / int(after[counter]) if module.momentum is None else module.momentum
    if weight == 0:
        raise RequirementError(f"BatchNorm layer '{name}' has momentum 0, so its buffers never move.")
    return weight


def _positions(observation: Observation) -> dict[str, int]:
    """Positions (height × width) per example at the input of every BatchNorm layer, found by a dry run."""
    task, seen = observation.task, {}
    model, like = task.model, next(iter(observation.parameters.values()))

    def record(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0][0, 0].numel() if inputs[0].ndim > 2 else 1

        return hook

    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    handles = [module.register_forward_pre_hook(record(name)) for name, module in norms]
    grey = torch.zeros(1, *task.domain.example_shapes()[task.domain.inputs], dtype=like.dtype, device=like.device)
    try:
        with simulating(model, "eval"), torch.no_grad():
            calling(model, observation.buffers, observation.parameters)(grey)
    finally:
        for handle in handles:
            handle.remove()
    return seen
