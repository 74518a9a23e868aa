"""Crafted models that are read through several local steps are noticed like those that ask for one gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo import attacks, data
from invertigo.domains import Images
from invertigo.federation import send, train_locally
from invertigo.guards import Inspector
from invertigo.types import GuardVerdict, History, Local, LocalTraining, Received, Task

DIGITS = data.load("digits")
STEPS = LocalTraining(sends="difference", learning_rate=0.05, epochs=2, batch_size=8)
PUBLIC, OWN = DIGITS.batch(slice(900, 1400)), DIGITS.batch(slice(0, 64))


def network(activation: type[nn.Module], wide: int) -> Task:
    """`wide` channels, a hidden layer of 128."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        kernels = [nn.Conv2d(1, wide, 3, padding=1), nn.ReLU()] if wide > 1 else []
        model = nn.Sequential(*kernels, nn.Flatten(), nn.Linear(64 * wide, 128), activation(), nn.Linear(128, 10))
    return Task(model, cross_entropy, Images(shape=DIGITS.shape), 10)


def look(own: Task, sent: Task) -> GuardVerdict:
    update = train_locally(sent, OWN, STEPS, generator=torch.Generator().manual_seed(0))
    local = Local(task=own, batch=OWN, training=STEPS, update=update)
    return Inspector().inspect(Received(sent.model.state_dict()), History(), local)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardtanh, nn.ReLU6])
@pytest.mark.parametrize(
    ("name", "settings"), [("imprint", {}), ("imprint", {"permute": True, "noise": 0.01}), ("loki", {})]
)
def test_bins_for_local_steps_are_refused_before_training(activation: type[nn.Module], name: str, settings: dict):
    own = network(activation, wide=8 if name == "loki" else 1)
    assert look(own, own).decision == "pass"
    attack: Any = attacks.registry[name](**settings)
    plant = attack.plant(
        own, STEPS, public=PUBLIC, num_examples=64, clients=4 if name == "loki" else 1,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    verdict = look(own, send(own, plant))
    assert verdict.decision == "block"
    assert {f.gate for f in verdict.findings if f.kind == "malice"} == {"train"}
