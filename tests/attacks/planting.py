"""Rounds of a malicious server on real images, and the share of them that comes back exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from invertigo import models
from invertigo.data import ImageSet
from invertigo.domains import Images
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, Observation, Reconstruction, Task

EXACT = 60.0
"""dB from which an image counts as recovered."""


def planted(
    attack: Any,
    images: ImageSet,
    model: str | nn.Module = "mlp",
    *,
    size: int,
    seed: int = 0,
    local: LocalTraining | None = None,
    clients: int = 1,
    public: int = 500,
    only: int | None = None,
    **options: object,
) -> tuple[Observation, Tensor, Batch]:
    """(observation, all private images, the first client's batch); `only` keeps one class in the batches."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    known, rest = images.batch(order[:public]) if public else None, order[public:]
    if only is not None:
        rest = rest[images.labels[rest] == only]
    batches = [images.batch(rest[i * size : (i + 1) * size]) for i in range(clients)]
    if isinstance(model, str):
        model = models.build(
            model, input_shape=images.shape, num_classes=images.num_classes, generator=generator, **options
        )
    task = Task(model, cross_entropy, Images(images.shape), num_classes=images.num_classes)
    local = local or LocalTraining()
    plant = attack.plant(task, local, public=known, num_examples=size, clients=clients, generator=generator)
    seen = observe(task, batches[0], local, level=5, public=known, plant=plant, others=batches[1:] or None)
    return seen, torch.cat([batch["images"] for batch in batches]), batches[0]


def psnr(truth: Tensor, found: Reconstruction) -> Tensor:
    """(image,) dB of the nearest rebuilt image, pixels in [0, 1]."""
    distance = torch.cdist(truth.double().flatten(1), found.fields["images"].double().flatten(1)).amin(1)
    return -10 * torch.log10((distance**2 / truth[0].numel()).clamp_min(1e-16))


def recovered(attack: Any, images: ImageSet, model: str | nn.Module = "mlp", **options: Any) -> float:
    """Share of the private images that one round gives away exactly."""
    seen, truth, _ = planted(attack, images, model, **options)
    found = attack.reconstruct(seen, generator=torch.Generator().manual_seed(0))
    return (psnr(truth, found) > EXACT).double().mean().item()
