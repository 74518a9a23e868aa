"""`doctor`: what leaks exactly, what is shared, and a fix for each, in seconds and without an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from invertigo.auditing.diagnosis import Diagnosis
from invertigo.auditing.graph_examination import examine_graphs
from invertigo.auditing.leaks import first_layer_findings, label_findings
from invertigo.auditing.probing import probe
from invertigo.auditing.structure import mode_findings, parameter_findings, size_findings
from invertigo.domains import Images
from invertigo.federation.functional import simulating
from invertigo.models import GraphNetwork, refuse_geometric
from invertigo.types import (
    InvalidValueError,
    LocalTraining,
    Observation,
    Task,
    trainable,
)

SIDES = (8, 16, 28, 32, 48, 64, 96, 112, 128, 160, 224, 256)
"""Image sides tried when the input's shape is not given."""
NODES_USUAL = 64
"""Nodes that a graph may have when that is not told."""
PROBE = 8
"""Most examples in the one gradient that is computed, on noise."""


def doctor(
    model: nn.Module,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    batch_size: int,
    *,
    input_shape: Sequence[int] | Tensor | None = None,
    num_classes: int | None = None,
    mode: str = "train",
) -> Diagnosis:
    """Examine a training step without attacking it: the model runs on noise once or twice, in seconds.

    Args:
        batch_size: examples behind one update.
        input_shape: (channel, height, width), or an example or a batch as the model reads it; of a graph network
            (nodes, feature columns). Without it, it is inferred where the first layer leaves only one possibility.
        num_classes: outputs of the classifier; inferred from the output without it.
        mode: the mode in which the client computes, `train` or `eval`.

    Raises: InvalidValueError when the shape of the input cannot be inferred or the model cannot read it.
    """
    if batch_size < 1:
        raise InvalidValueError(f"batch_size is {batch_size}; an update comes from at least one example.")
    local = LocalTraining(mode=mode)  # type: ignore[arg-type]
    if not trainable(model):
        raise InvalidValueError("The model has no trainable parameters, so a client has nothing to send.")
    refuse_geometric(model)
    if isinstance(model, GraphNetwork):
        return examine_graphs(model, loss_fn, batch_size, _graph_shape(model, input_shape), local, num_classes)
    shape = _shape(model, input_shape)
    domain = Images(shape)
    classes = num_classes or _classes(model, shape)
    task = Task(model, loss_fn, domain, classes)
    probed = _probe(task, local, batch_size)
    findings = [
        *first_layer_findings(task, local, batch_size, probed),
        *label_findings(task, local, batch_size, probed),
        *mode_findings(model, local),
        *size_findings(model, shape, batch_size),
        *parameter_findings(model, probed),
    ]
    return Diagnosis(tuple(findings), type(model).__name__, batch_size, mode, shape)


def _probe(task: Task, local: LocalTraining, batch_size: int) -> Observation:
    """One real gradient on images of noise with integer labels."""
    size = min(max(batch_size, 2), PROBE)
    g = torch.Generator().manual_seed(0)
    images = torch.rand(size, *task.domain.example_shapes()[task.domain.inputs], generator=g)
    labels = torch.randint(0, task.num_classes or 2, (size,), generator=g)
    fields = {task.domain.inputs: images, task.domain.target: labels}
    return probe(task, fields, local, g)


def _graph_shape(model: GraphNetwork, given: Sequence[int] | Tensor | None) -> tuple[int, ...]:
    if given is None:
        return NODES_USUAL, model.message_layers[0].weight.shape[1]
    return tuple(given.shape[-2:]) if isinstance(given, Tensor) else tuple(int(side) for side in given)


def _shape(model: nn.Module, given: Sequence[int] | Tensor | None) -> tuple[int, int, int]:
    if isinstance(given, Tensor):
        given = given.shape[1:] if given.ndim == 4 else given.shape
    if given is None:
        return _inferred(model)
    shape = tuple(int(side) for side in given)
    if len(shape) != 3 or min(shape) < 1:
        raise InvalidValueError(f"input_shape is {shape}; give (channel, height, width), all positive.")
    problem = _problem(model, shape)
    if problem:
        raise InvalidValueError(f"The model cannot read images of shape {shape}: {problem}. Check input_shape.")
    return shape  # type: ignore[return-value]


def _inferred(model: nn.Module) -> tuple[int, int, int]:
    layers = (m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    first = next(layers, None)
    candidates: list[tuple[int, int, int]] = []
    if isinstance(first, nn.Linear):
        candidates = [(1, 1, first.in_features)]
    elif isinstance(first, nn.Conv2d):
        candidates = [(first.in_channels, side, side) for side in SIDES]
    fitting = [shape for shape in candidates if not _problem(model, shape)]
    if len(fitting) != 1:
        several = f"it reads {', '.join(map(str, fitting))}" if fitting else "no usual shape fits"
        raise InvalidValueError(
            f"The shape of the model's input cannot be inferred ({several}); pass input_shape=(channel, height, width) "
            "or an example."
        )
    return fitting[0]


def _problem(model: nn.Module, shape: tuple[int, ...]) -> str:
    try:
        _run(model, shape)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        return str(error).splitlines()[0]
    return ""


def _classes(model: nn.Module, shape: tuple[int, ...]) -> int | None:
    output = _run(model, shape)
    return output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1 else None


def _run(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    like = next(model.parameters())
    with simulating(model, "eval"), torch.no_grad():
        return model(torch.full((1, *shape), 0.5, dtype=like.dtype, device=like.device))
