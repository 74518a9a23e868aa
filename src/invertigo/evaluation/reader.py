"""An independent classifier that reads rebuilt pictures: is what makes the private class visible still there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from invertigo.domains import Images
from invertigo.models import build, memory
from invertigo.models.fitting import fit_classifier
from invertigo.types import Batch, ConfigurationError, Metric

READABLE = Metric("readable", "Class readable", True, "", "1 when an independent classifier reads the true class")


@dataclass(frozen=True)
class Reader:
    """A classifier of clean images that neither the client, nor its defense, nor an attack has ever seen."""

    model: nn.Module
    domain: Images

    def read(self, fields: Mapping[str, Tensor]) -> Int[Tensor, " batch"]:
        """The class of each picture."""
        images = fields[self.domain.inputs].detach().to("cpu", torch.float32)
        unit = self.domain.to_unit(images).nan_to_num(nan=0.5).clamp(0, 1)
        with torch.no_grad():
            return self.model(unit).argmax(-1)

    def scores(self, truth: Batch, rebuilt: Mapping[str, Tensor], matching: Tensor) -> list[float]:
        """For each true image, 1.0 when the rebuilt one matched to it is read as its class (attacker's accuracy)."""
        seen = self.read(self.domain.in_order(rebuilt, matching))
        return (seen == truth[self.domain.target].cpu()).double().tolist()

    def accuracy(self, batch: Batch) -> float:
        """Share of a batch read right; on clean images, what the attacker's accuracy is to be held against."""
        return (self.read(batch.fields) == batch[self.domain.target].cpu()).double().mean().item()


def train_reader(
    data: Batch, domain: Images, num_classes: int, *, epochs: int, generator: torch.Generator, width: int = 12
) -> Reader:
    """Train a convolutional network on clean examples, all classes weighing alike; once for the same data and seed.

    Raises: ConfigurationError for data that are no images.
    """
    if not isinstance(domain, Images):
        raise ConfigurationError(f"Only images can be read by a classifier, not '{domain.name}'.")
    unit, labels = domain.to_unit(data[domain.inputs].cpu().float()), data[domain.target].cpu()

    def make() -> nn.Module:
        model = build("convnet", input_shape=domain.shape, num_classes=num_classes, generator=generator, width=width)
        return fit_classifier(model, unit, labels, epochs=epochs, generator=generator)

    settings = f"reader {epochs} {width} {num_classes}"
    return Reader(memory.once(make, settings, [], {"images": unit, "labels": labels}, generator), domain)
