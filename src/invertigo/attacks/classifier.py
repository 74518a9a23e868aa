"""The layer that turns features into class scores, found by running the model rather than by counting tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from invertigo.attacks.dry_run import dry_run, for_rows
from invertigo.federation.calling import calling
from invertigo.federation.functional import simulating
from invertigo.types import Observation, RequirementError, tensors_in

PROBES = 8
"""Dummy images in a dry run; more than one so that BatchNorm can run in training mode."""


@dataclass(frozen=True)
class Classifier:
    """The last layer with one output a class: `logits = weight @ features + bias`.

    `weight_name` and `bias_name` are its parameters' names, None where it has none or where it is a convolution,
    whose `features` are not one vector an example. `features` (probe, feature) and `logits` (probe, class) are what a
    dry run on mid-grey noise gave. `is_output` tells that nothing follows it inside the model.
    """

    name: str
    module: nn.Linear | nn.Conv2d
    weight_name: str | None
    bias_name: str | None
    features: Tensor | None
    logits: Tensor
    is_output: bool


def probe_images(observation: Observation, count: int = PROBES, seed: int = 0) -> Tensor:
    """Mid-grey images with a tenth of the range as noise, as the model reads them; the same ones every time."""
    domain = observation.task.domain
    like = next(iter(observation.parameters.values()))
    low, high = (bound.to(like) for bound in domain.bounds(domain.inputs))
    shape = (count, *domain.example_shapes()[domain.inputs])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(like)
    return (low + high) / 2 + 0.1 * (high - low) * noise


Call = tuple[str, nn.Linear | nn.Conv2d, Tensor, Tensor]


def find_classifier(observation: Observation, parameters: dict[str, Tensor], *, width: int | None = None) -> Classifier:
    """The last executed linear or convolution layer with as many outputs as there are classes.

    Args:
        parameters: trainable parameters to run the model with.
        width: outputs of the layer; by default the number of classes, two or more.

    Raises: RequirementError when there is no such layer, or its gradient is not in the update.
    """
    model = observation.task.model
    calls: list[Call] = []

    def record(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append((name, module, inputs[0].detach().clone(), output.detach().clone()))

        return hook

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    handles = [module.register_forward_hook(record(name)) for name, module in layers]
    try:
        with simulating(model, observation.local.mode), torch.no_grad():
            output = dry_run(observation.task, probe_images(observation), observation.buffers, parameters)
    finally:
        for handle in handles:
            handle.remove()
    classes = width or observation.task.num_classes or _outputs(output)
    fitting = [call for call in calls if _width(call[1]) == classes]
    # Of several heads, one that the loss reads: what the others sent is zero.
    told = [call for call in fitting if any(observation.update.tensors[n].any() for n in _sent(observation, call))]
    fitting = told or fitting
    if classes < (width or 2) or not fitting:
        raise RequirementError(
            f"Labels cannot be read from this update: no linear or convolution layer has one output for each of "
            f"{classes} classes. Give the labels in Knowledge, or use an attack that optimises them."
        )
    return _describe(observation, *fitting[-1], output)


def _describe(
    observation: Observation, name: str, module: nn.Linear | nn.Conv2d, inputs: Tensor, made: Tensor, output: Any
) -> Classifier:
    named = {id(p): n for n, p in observation.task.model.named_parameters()}
    weight, bias = (named.get(id(getattr(module, part))) for part in ("weight", "bias"))
    sent = observation.update.tensors
    vector = isinstance(module, nn.Linear) and inputs.ndim == 2
    weight = weight if vector and weight in sent else None
    bias = bias if bias in sent else None
    if weight is None and bias is None:
        raise RequirementError(
            f"Labels cannot be read from this update: it holds no gradient of the classifier '{name}'. "
            "Give the labels in Knowledge, or use an attack that optimises them."
        )
    logits = made if made.ndim == 2 else made.flatten(2).mean(-1)
    is_output = isinstance(output, Tensor) and output.shape == logits.shape and torch.allclose(output, logits)
    return Classifier(name, module, weight, bias, inputs if vector else None, logits, is_output)


def _outputs(output: Any) -> int:
    """Number of classes that a model's output tells: the width of its logits, as far as these can be told."""
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    tensors = tensors_in(output if named is None else named)
    return next((t.shape[1] for t in tensors if t.ndim == 2), next((t.shape[1] for t in tensors if t.ndim > 2), 1))


def _sent(observation: Observation, call: Call) -> list[str]:
    named = {id(p): n for n, p in observation.task.model.named_parameters()}
    names = (named.get(id(p)) for p in call[1].parameters())
    return [name for name in names if name is not None and name in observation.update.tensors]


def _width(module: nn.Linear | nn.Conv2d) -> int:
    return module.out_features if isinstance(module, nn.Linear) else module.out_channels


def logit_gradients(
    observation: Observation,
    classifier: Classifier,
    parameters: dict[str, Tensor],
    logits: Tensor,
    labels: Tensor,
    *,
    mode: str | None = None,
) -> Tensor:
    r"""$\partial L / \partial z_i$ of a batch's loss by each row $z_i$ of `logits` (row, class), with labels: for the
    mean cross-entropy of $n$ rows, $(\mathrm{softmax}(z_i) - e_{y_i})/n$.

    The loss is the task's own. Where something follows the classifier inside the model, or the step is the user's own,
    the model is run with the classifier's output replaced by `logits`.
    """
    task = observation.task
    logits = logits.detach().requires_grad_()
    with torch.enable_grad():
        if classifier.is_output and task.step_loss is None:
            loss = task.loss(logits, labels)
        else:
            with simulating(task.model, mode or observation.local.mode), _output_replaced(classifier.module, logits):
                images = probe_images(observation, len(logits))
                fields = {task.domain.inputs: images, task.domain.target: labels}
                call = calling(task.model, observation.buffers, parameters)
                loss = for_rows(task, len(logits)).evaluate(call, fields)
        (gradient,) = torch.autograd.grad(loss, logits)
    return gradient


@contextmanager
def _output_replaced(module: nn.Module, logits: Tensor) -> Iterator[None]:
    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return logits.reshape(*logits.shape, *([1] * (output.ndim - 2))).expand(output.shape).clone()

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
