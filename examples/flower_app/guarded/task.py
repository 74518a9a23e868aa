"""What clients and server agreed on: the model, the loss, and whose examples are whose."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo import Batch, Images, data, models
from invertigo.flower import Recipe
from invertigo.types import LocalTraining, Task

SHAPE, CLASSES, PUBLIC = (1, 8, 8), 10, 357


def build(generator: torch.Generator | None = None) -> nn.Module:
    """The model; without a generator, as the server draws it before the first round."""
    generator = generator or torch.Generator().manual_seed(0)
    return models.build("mlp", input_shape=SHAPE, num_classes=CLASSES, generator=generator)


def task(model: nn.Module) -> Task:
    return Task(model, cross_entropy, Images(shape=SHAPE), CLASSES)


def recipe(config: Mapping[str, Any]) -> Recipe:
    """How clients train: their own code, their guards, the server's records and its attack all read it here."""
    return Recipe(LocalTraining(sends="difference", learning_rate=float(config["learning-rate"])))


def public() -> Batch:
    """Digits that are no client's."""
    return data.load("digits").batch(slice(0, PUBLIC))


def part(number: int, of: int) -> Batch:
    """The digits of one client."""
    images = data.load("digits")
    return images.batch(torch.arange(PUBLIC + number, len(images), of))
