"""Findings on the model as a whole: modes and buffers, counts of equations and unknowns, tied and unused weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from invertigo.auditing.diagnosis import Finding
from invertigo.federation import sensitive_layers
from invertigo.types import LocalTraining, Observation


def mode_findings(model: nn.Module, local: LocalTraining) -> Iterator[Finding]:
    """What training and inference mode change, and what the buffers tell."""
    layers = sensitive_layers(model)
    norms = {name: m for name, m in layers.items() if isinstance(m, _NormBase)}
    if layers and local.mode == "eval":
        yield Finding(
            "inference-mode", "warning", next(iter(layers)),
            f"{len(layers)} layers (BatchNorm or dropout) compute in inference mode, where nothing couples the "
            "examples or randomises them: the easiest setting there is for gradient inversion.",
            "train in training mode: model.train().",
        )  # fmt: skip
    if norms:
        numbers = 2 * sum(m.num_features for m in norms.values())
        yield Finding(
            "shared-buffers", "warning", next(iter(norms)),
            f"The buffers of {len(norms)} norm layers hold {numbers} running means and variances. A client that sends "
            "its state dict sends them, and after one local step they give the batch's exact statistics away.",
            "send parameters only and keep the buffers on the client, or use GroupNorm.",
        )  # fmt: skip
    if local.mode == "train" and any(isinstance(m, _BatchNorm) for m in model.modules()):
        yield Finding(
            "batchnorm-couples", "info", "",
            "BatchNorm in training mode couples the examples of a batch, which makes inversion harder as long as the "
            "statistics stay private.",
        )  # fmt: skip
    dropouts = [name for name in layers if name not in norms]
    if local.mode == "train" and dropouts:
        yield Finding(
            "dropout", "info", dropouts[0],
            f"{len(dropouts)} layers drop values at random; an attacker has to guess the masks as well.",
        )  # fmt: skip


def size_findings(model: nn.Module, shape: tuple[int, ...], batch_size: int) -> Iterator[Finding]:
    """Could the numbers in the update determine the batch at all?"""
    entries = sum(p.numel() for p in model.parameters() if p.requires_grad)
    unknown = math.prod(shape) * batch_size
    ratio = entries / unknown
    if ratio >= 1:
        yield Finding(
            "enough-equations", "warning", "",
            f"The update holds {entries:,} numbers for {unknown:,} unknown pixels ({ratio:.3g} a pixel): counting does "
            "not rule out that it determines the whole batch.",
            f"above {entries // math.prod(shape):,} examples an update, it cannot be determined without a prior.",
        )  # fmt: skip
    else:
        yield Finding(
            "too-few-equations", "info", "",
            f"The update holds {entries:,} numbers for {unknown:,} unknown pixels ({ratio:.3g} a pixel), so it cannot "
            "determine the whole batch without a prior; parts of it may still leak.",
        )  # fmt: skip


def parameter_findings(model: nn.Module, probed: Observation) -> Iterator[Finding]:
    """Parameters that two places share, and parameters that the loss does not reach."""
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    for names in places.values():
        if len(names) > 1:
            yield Finding(
                "tied-parameters", "info", names[0],
                f"{' and '.join(names)} are one parameter; its gradient is the sum over its uses.",
            )  # fmt: skip
    unused = [name for name, tensor in probed.update.tensors.items() if not bool(tensor.any())]
    if unused:
        listed = ", ".join(unused[:3]) + (f" and {len(unused) - 3} more" if len(unused) > 3 else "")
        yield Finding(
            "no-gradient", "info", unused[0],
            f"{listed} got no gradient on noise: unused, dead or cancelled. They carry nothing about the batch.",
        )  # fmt: skip
