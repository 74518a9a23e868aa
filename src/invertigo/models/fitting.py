"""Training a classifier on clean, labelled images: for those who judge pictures rather than send updates."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.models.autoencoder import Watch, shuffled


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
    optimiser = torch.optim.Adam(model.parameters(), learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(epochs, 1))
    weights = _balance(labels).to(images)
    model.train()
    with torch.enable_grad():
        for epoch in range(epochs):
            loss = torch.zeros(())
            for part in shuffled(len(images), batch_size, generator):
                part = part.to(images.device)
                if len(part) < 2:  # BatchNorm has no variance to divide by
                    continue
                each = F.cross_entropy(model(images[part]), labels[part], reduction="none")
                loss = (each * weights[part]).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            decay.step()
            if watch is not None and watch(epoch + 1, epochs, loss.item()):
                break
    return model.requires_grad_(False).eval()


def _balance(labels: Tensor) -> Tensor:
    """A weight for each example, mean 1, such that all classes that occur weigh the same."""
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[inverse])
