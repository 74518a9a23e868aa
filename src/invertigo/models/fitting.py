"""Training a classifier on clean, labelled images: for those who judge pictures rather than send updates."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.models.descent import Watch, descend


def fit_classifier(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, " batch"],
    *,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    generator: torch.Generator,
    watch: Watch | None = None,
) -> nn.Module:
    """Train `model` in place by cross-entropy with Adam, annealed to zero; returned frozen, in inference mode.

    Classes count alike however rare they are: each example is weighted by the inverse frequency of its class.
    """
    weights = _balance(labels).to(images)
    model.train()

    def loss(part: Tensor) -> Tensor | None:
        part = part.to(images.device)
        if len(part) < 2:  # BatchNorm has no variance to divide by
            return None
        each = F.cross_entropy(model(images[part]), labels[part], reduction="none")
        return (each * weights[part]).mean()

    descend(
        model, loss, len(images), epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        generator=generator, watch=watch,
    )  # fmt: skip
    return model.requires_grad_(False).eval()


def _balance(labels: Tensor) -> Tensor:
    """A weight for each example, mean 1, such that all classes that occur weigh the same."""
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[inverse])
