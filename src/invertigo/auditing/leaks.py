"""Findings on what follows from an update by algebra: inputs of a first linear layer, tokens, labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from invertigo.attacks.classifier import find_classifier, logit_gradients
from invertigo.attacks.dry_run import dry_run
from invertigo.attacks.exact import FirstLinear, find_first_linear
from invertigo.auditing.diagnosis import Finding
from invertigo.auditing.probing import NOT_PROBED
from invertigo.auditing.token_leaks import token_findings
from invertigo.types import LocalTraining, Observation, RequirementError, Task

SPARSE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardswish)
CANCELLED = 1e-5
"""A bias gradient this much smaller than the weight gradient's rows is rounding: a later norm cancels it."""


def first_layer_findings(task: Task, local: LocalTraining, batch_size: int, probed: Observation) -> Iterator[Finding]:
    """Does the first layer give its input away?"""
    for name, module in task.model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.weight.requires_grad:
            yield _embedding(name, module)
    yield from token_findings(task, batch_size)
    try:
        run = partial(dry_run, task)
        first = find_first_linear(task.model, task.domain, mode=local.mode, run=run, convolutions=True)
    except RequirementError:
        convolution = next((item for item in task.model.named_modules() if isinstance(item[1], nn.Conv2d)), None)
        if convolution is not None:
            name, module = convolution
            yield _convolution(name, module, task.domain.example_shapes()[task.domain.inputs], batch_size)
        return
    if first.weight_name in {name for name, p in task.model.named_parameters() if p.requires_grad}:
        yield _linear(task, first, batch_size, probed)


def _linear(task: Task, first: FirstLinear, batch_size: int, probed: Observation) -> Finding:
    neurons, pixels = first.neurons, len(first.scale)
    fix = (
        "start with a convolution (stride or pooling before the first linear layer), or freeze this layer; a large "
        "batch alone is no protection for examples that activate a neuron alone."
    )
    if first.bias_name is None or not getattr(first.module.bias, "requires_grad", False):
        return Finding(
            "first-layer-span", "warning", first.name,
            f"Every row of this layer's gradient is a combination of the {batch_size} inputs of {pixels} pixels. "
            "Without a bias gradient one input is known up to a factor; of several, their span.", fix,
        )  # fmt: skip
    if _cancelled(first, probed):
        return Finding(
            "first-layer-cancelled", "warning", first.name,
            "A normalisation behind this layer cancels its bias gradient, so the ratio that gives inputs away does not "
            f"exist. The rows of the weight gradient are still combinations of the {batch_size} inputs.", fix,
        )  # fmt: skip
    sparse = any(isinstance(module, SPARSE) for module in task.model.modules())
    if batch_size == 1:
        what = "The weight gradient divided by the bias gradient is the private input, exactly."
    elif sparse:
        what = (
            "Each neuron that one example alone activates shows that example as weight gradient over bias gradient, "
            f"exactly; once found it is subtracted and shows others. Up to {min(batch_size, neurons)} of {batch_size} "
            f"examples can be read this way off {neurons} neurons. A batch of one is always exact."
        )
    else:
        return Finding(
            "first-layer-span", "warning", first.name,
            f"Each neuron mixes all {batch_size} inputs (no ReLU-like activation separates them), so the update gives "
            "their span; a batch of one, or one example repeated, would be given away exactly.", fix,
        )  # fmt: skip
    return Finding("first-layer-exact", "critical", first.name, what, fix)


def _cancelled(first: FirstLinear, probed: Observation) -> bool:
    if not probed.update.tensors or first.bias_name is None:
        return False
    weight, bias = (probed.update.tensors[name].double() for name in (first.weight_name, first.bias_name))
    return float(bias.norm()) < CANCELLED * float(weight.norm())


def _embedding(name: str, module: nn.Embedding | nn.EmbeddingBag) -> Finding:
    return Finding(
        "embedding-rows", "critical", name,
        f"Only the rows of the tokens (or categories) that occur in the batch get a gradient, so which of the "
        f"{module.num_embeddings} occur is read off directly.",
        "freeze the embedding on clients, or add noise to its whole gradient (differential privacy).",
    )  # fmt: skip


def _convolution(name: str, module: nn.Module, shape: tuple[int, ...], batch_size: int) -> Finding:
    assert isinstance(module, nn.Conv2d)
    (top, left), (kernel_h, kernel_w) = _padding(module), module.kernel_size
    height = (shape[1] + 2 * top - module.dilation[0] * (kernel_h - 1) - 1) // module.stride[0] + 1
    width = (shape[2] + 2 * left - module.dilation[1] * (kernel_w - 1) - 1) // module.stride[1] + 1
    unknown, values = math.prod(shape), module.out_channels * height * width
    equations = module.weight.numel()
    injective = values >= unknown
    follows = "enough for its input to follow from its output" if injective else "too few to give its input back"
    message = (
        f"The first layer turns {unknown} pixels into {values} values, {follows}. Its gradient adds {equations} "
        f"equations for {unknown * batch_size} unknown pixels of the batch."
    )
    severity = "warning" if injective and equations >= unknown * batch_size else "info"
    return Finding(
        "first-convolution", severity, name, message,
        "a larger stride or fewer channels in the first layer loses detail." if injective else "",
    )  # fmt: skip


def _padding(module: nn.Conv2d) -> tuple[int, int]:
    if isinstance(module.padding, str):
        if module.padding == "valid":
            return 0, 0
        return tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size))  # type: ignore[return-value]
    return module.padding  # type: ignore[return-value]


def label_findings(task: Task, local: LocalTraining, batch_size: int, probed: Observation) -> Iterator[Finding]:
    """Do labels follow from the classifier's gradient?"""
    if not probed.update.tensors:
        yield NOT_PROBED
        return
    try:
        classifier = find_classifier(probed, dict(probed.parameters))
    except RequirementError:
        return
    classes = classifier.logits.shape[1]
    labels = torch.arange(classes, device=classifier.logits.device)
    mean = classifier.logits.mean(0).expand(classes, -1)
    directions = logit_gradients(probed, classifier, dict(probed.parameters), mean, labels)
    if not _tells_classes(directions):
        return
    part = "bias" if classifier.bias_name is not None else "weight"
    unique = math.exp(sum(math.log1p(-i / classes) for i in range(min(batch_size, classes)))) * (batch_size <= classes)
    if batch_size == 1:
        message = f"The label is the entry of largest magnitude of the {part} gradient: it is known exactly."
    else:
        message = (
            f"The {part} gradient of the {classes}-way classifier tells how often each class occurs among the "
            f"{batch_size} examples, exactly for an untrained model and roughly for a trained one. With balanced "
            f"classes all labels of a batch differ with probability {unique:.2g}; then a label names one image."
        )
    yield Finding(
        "labels", "critical" if batch_size == 1 else "warning", classifier.name, message,
        "larger batches with repeated classes, several local steps, or secure aggregation; a classifier without bias "
        "tells as much.",
    )  # fmt: skip


def _tells_classes(directions: Tensor) -> bool:
    diagonal = directions.diagonal()
    return bool((diagonal <= directions.min(1).values).all() and (diagonal < 0).any())
