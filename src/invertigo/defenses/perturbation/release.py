"""What the clients and the adversary share: the prepared perturbation, applied to a batch as the model reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from invertigo.defenses.perturbation.latent import LatentPerturbation
from invertigo.domains import Images
from invertigo.models import memory
from invertigo.models.autoencoder import Autoencoder, fit_autoencoder
from invertigo.models.descent import Watch
from invertigo.types import AdversaryView, Batch, ConfigurationError, Observation, Task
from invertigo.types.observation import read_tensors

Tensors = Mapping[str, Tensor]


def fitted(
    task: Task,
    public: Batch | None,
    *,
    name: str,
    latent: int,
    width: int,
    epochs: int,
    generator: torch.Generator,
    watch: Watch | None = None,
) -> Autoencoder:
    """An autoencoder of the public images; a process fits the same one only once. Raises: ConfigurationError."""
    pixels = public_pixels(task, public, name)

    def fit() -> Autoencoder:
        return fit_autoencoder(pixels, latent=latent, width=width, epochs=epochs, generator=generator, watch=watch)

    return memory.once(fit, f"autoencoder {latent} {width} {epochs}", [], {"pixels": pixels}, generator)


def autoencoded(
    task: Task,
    public: Batch | None,
    *,
    name: str,
    weights: str | None,
    latent: int,
    width: int,
    epochs: int,
    generator: torch.Generator,
) -> Task:
    """The task with an autoencoder and no trained head: from `weights`, else fitted to the public images."""
    if weights is not None:
        return loaded(task, weights, head=False)
    autoencoder = fitted(task, public, name=name, latent=latent, width=width, epochs=epochs, generator=generator)
    return replace(task, prepared=LatentPerturbation(autoencoder).tensors())


def public_pixels(task: Task, public: Batch | None, name: str) -> Tensor:
    """The public images as pixels in [0, 1]. Raises: ConfigurationError."""
    if not isinstance(task.domain, Images):
        raise ConfigurationError(f"Defense '{name}' perturbs images, but the task's domain is '{task.domain.name}'.")
    if public is None:
        raise ConfigurationError(
            f"Defense '{name}' trains its autoencoder on public images, because what it learns is sent to all clients "
            "and would otherwise leak private ones; pass a public batch (data.public_count), or `weights`."
        )
    return task.domain.to_unit(public[task.domain.inputs].to(_like(task)))


def loaded(task: Task, weights: str | Path, *, head: bool) -> Task:
    """The task with a perturbation read from a safetensors file, with its trained head or without.

    Raises: CorruptFileError, MismatchError.
    """
    tensors = {name: t for name, t in read_tensors(weights).items() if head or not name.startswith("head.")}
    prepared(replace(task, prepared=tensors), str(weights))
    return replace(task, prepared=tensors)


def prepared(task: Task, name: str) -> LatentPerturbation:
    """The perturbation that `prepare` left with the task. Raises: ConfigurationError, MismatchError."""
    if not isinstance(task.domain, Images):
        raise ConfigurationError(f"Defense '{name}' perturbs images, but the task's domain is '{task.domain.name}'.")
    if not task.prepared:
        raise ConfigurationError(
            f"Defense '{name}' has not been prepared, so there is no trained autoencoder to perturb with; train the "
            "task that defense.prepare(task, public, generator=...) returns."
        )
    return LatentPerturbation.from_tensors(task.prepared, task.domain.shape, _like(task))


def released(task: Task, batch: Batch, energy: float, *, name: str, generator: torch.Generator) -> Batch:
    """The batch with perturbed images; all randomness comes from `generator`."""
    perturbation, images = prepared(task, name), batch[task.domain.inputs]
    noise = draw_noise(len(images), perturbation.latent, images, generator)
    with torch.no_grad():
        changed = _perturbed(task, perturbation, images, noise, energy)
    return Batch({**batch.fields, task.domain.inputs: changed})


def informed_view(observation: Observation, energy: float, *, name: str, knows: str) -> AdversaryView:
    """An adversary with the perturbation's weights: simulates it at its mean, or with a draw of its own."""
    task = observation.task
    perturbation, inputs = prepared(task, name), task.domain.inputs

    def change(fields: Tensors, noise: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        images = fields[inputs]
        return {**fields, inputs: _perturbed(task, perturbation, images, noise(images), energy)}

    def transform(fields: Tensors) -> dict[str, Tensor]:
        return change(fields, lambda images: images.new_zeros(len(images), perturbation.latent))

    def draw(fields: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            return change(fields, lambda images: draw_noise(len(images), perturbation.latent, images, generator))

    return AdversaryView(knows, transform=transform, draw=draw)


def draw_noise(count: int, latent: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers (count, latent) on the device and in the dtype of `like`."""
    drawn = torch.randn(count, latent, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device)


def _perturbed(task: Task, perturbation: LatentPerturbation, images: Tensor, noise: Tensor, energy: float) -> Tensor:
    domain = task.domain
    if not isinstance(domain, Images):
        raise ConfigurationError(f"A perturbation of images cannot be applied to '{domain.name}'.")
    return domain.from_unit(perturbation(domain.to_unit(images), noise, energy))


def _like(task: Task) -> Tensor:
    return next(task.model.parameters())
