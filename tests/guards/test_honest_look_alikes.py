"""Honest models that look crafted: adapters of which half is zero, and one matrix that embeds and classifies."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from invertigo import data
from invertigo.domains import Images
from invertigo.guards import Inspector
from invertigo.guards.evaluation import Check, run
from invertigo.guards.simulation import Setting, federation
from invertigo.types import Batch, LocalTraining, Task

DIGITS = data.load("digits")
TRAINING = LocalTraining(sends="difference", learning_rate=0.3, epochs=2, batch_size=16)


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank correction, whose second factor starts at zero (LoRA)."""

    def __init__(self, features: int, width: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(features, width).requires_grad_(False)
        self.down, self.up = nn.Linear(features, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) + self.up(self.down(inputs))


class Tied(nn.Module):
    """Reads the grey levels of an image as tokens; the matrix that embeds them also classifies."""

    LEVELS = 17

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(self.LEVELS, width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(63 * width, 64), nn.ReLU(), nn.Linear(64, width))
        self.head = nn.Linear(width, self.LEVELS)
        self.head.weight = self.embedding.weight

    def forward(self, images: Tensor) -> Tensor:
        tokens = (images.flatten(1)[:, :63] * 16).round().long()
        return self.head(self.body(self.embedding(tokens)))


def honest(model: nn.Module, classes: int, examples: Batch) -> list[Check]:
    setting = Setting(clients=4, rounds=6, concentration=None, training=TRAINING, probe=32)
    world = federation(Task(model, cross_entropy, Images(shape=DIGITS.shape), classes), examples, setting)
    return list(run(world, Inspector()))


def drawn(build) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build()


def test_adapters_with_a_zero_factor_raise_no_alarm_from_the_first_round_on():
    model = drawn(
        lambda: nn.Sequential(nn.Flatten(), Adapted(64, 64), nn.ReLU(), Adapted(64, 32), nn.ReLU(), nn.Linear(32, 10))
    )
    checks = honest(model, 10, DIGITS.batch(slice(0, 800)))
    assert len(checks) == 24
    assert not [c.rules for c in checks if c.flagged]
    assert checks[-1].loss < checks[0].loss  # the adapters have moved away from zero


def test_a_matrix_that_embeds_and_classifies_raises_no_alarm():
    model = drawn(Tied)
    pixels = DIGITS.images[:800]
    labels = (pixels[:, 0, 4, 4] * 16).round().long()  # the grey level of a pixel that varies
    checks = honest(model, Tied.LEVELS, Batch({"images": pixels, "labels": labels}))
    assert len(checks) == 24
    assert not [c.rules for c in checks if c.flagged]
    assert checks[-1].loss < checks[0].loss
