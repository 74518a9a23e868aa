"""Soliton biases: the law of the degrees, how many examples fire, and that peeling reads more than without them."""

from __future__ import annotations

import math

import pytest
import torch
from planting import planted, recovered
from torch import nn

from invertigo import data
from invertigo.attacks.active import SolitonData, SolitonFree
from invertigo.attacks.active.soliton import soliton_degrees, soliton_law
from invertigo.data import ImageSet
from invertigo.domains import Images
from invertigo.types import InvalidValueError, LocalTraining, RequirementError, Task


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return data.load("digits")


def test_the_law_is_the_robust_soliton_distribution():
    """Luby's two sums, written out term by term."""
    size, c, delta = 64, 0.05, 0.4
    ripple = c * math.log(size / delta) * math.sqrt(size)
    spike = round(size / ripple)
    naive = []
    for degree in range(1, size + 1):
        ideal = 1 / size if degree == 1 else 1 / (degree * (degree - 1))
        more = ripple / (degree * size) if degree < spike else 0.0
        naive.append(ideal + (ripple * math.log(ripple / delta) / size if degree == spike else more))
    assert soliton_law(size, c, delta).tolist() == pytest.approx([x / sum(naive) for x in naive])
    drawn = soliton_degrees(20_000, size, c, delta, torch.Generator().manual_seed(0))
    assert float((drawn == 2).double().mean()) == pytest.approx(naive[1] / sum(naive), abs=0.02)


def test_as_many_public_examples_fire_as_the_degree_says(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 10))
    task = Task(model, nn.functional.cross_entropy, Images(digits.shape), 10)
    public = digits.batch(slice(0, 32))
    plant = SolitonData().plant(
        task, LocalTraining(), public=public, num_examples=32, clients=1, generator=torch.Generator().manual_seed(0)
    )  # fmt: skip
    fires = public["images"].flatten(1) @ plant.state["1.weight"].T + plant.state["1.bias"] > 0
    generator = torch.Generator().manual_seed(0)
    torch.randn(200, 64, generator=generator, dtype=torch.float64)
    torch.randperm(32, generator=generator)
    degrees = soliton_degrees(200, 32, 0.05, 0.4, generator).clamp_max(31)
    assert (fires.sum(0) == degrees).float().mean() > 0.97  # equal outputs of two examples leave no room between them


def test_more_comes_back_than_from_quantiles_of_one(digits):
    assert recovered(SolitonData(), digits, size=48, hidden=(512,)) > 0.6
    assert recovered(SolitonFree(rows="mirrored"), digits, size=16, hidden=(512,)) > 0.2


def test_mistakes_are_told(digits):
    with pytest.raises(InvalidValueError, match="failure"):
        SolitonFree(failure=1.0)
    with pytest.raises(RequirementError, match="public"):
        planted(SolitonData(), digits, size=8, public=0, hidden=(32,))
