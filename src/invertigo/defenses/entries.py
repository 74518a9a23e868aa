"""All entries of an update together: how long it is, which are the largest, and what they weigh."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def count(update: Tensors) -> int:
    """Number of entries over all layers."""
    return sum(t.numel() for t in update.values())


def length(update: Tensors) -> float:
    """Euclidean norm over all layers, in float64."""
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in update.values()))


def root_mean_square(update: Tensors) -> float:
    """Root mean square entry over all layers."""
    return length(update) / math.sqrt(max(count(update), 1))


def largest(values: Tensor, keep: int) -> Tensor:
    """Mask (of the shape of `values`, boolean) of the `keep` entries of largest magnitude; ties go to the lower index.

    Magnitudes are compared in float64 and counted rather than held against a threshold, so that equal entries (zeros
    above all) neither all stay nor all go.
    """
    order = torch.sort(values.detach().double().abs().flatten(), descending=True, stable=True).indices
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[order[:keep]] = True
    return mask.view(values.shape)


def bits_to_bytes(bits: int) -> int:
    """Whole bytes that hold so many bits."""
    return math.ceil(bits / 8)
