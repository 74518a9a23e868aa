"""Every registered attack, defense and domain, held to the contract. A new one is checked once it is registered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from invertigo import attacks, defenses, domains, guards, models
from invertigo.domains import Graphs, Images
from invertigo.testing import Case, attack_checks, defense_checks, domain_checks, guard_checks, planted_case
from invertigo.types import Batch, Observation

QUICK: dict[str, dict[str, Any]] = {
    "dlg": {"iterations": 30},
    "idlg": {"iterations": 30},
    "inverting_gradients": {"iterations": 60},
    # Its gradient noise is scaled for deep networks; in a network this small it drowns the gradient.
    "see_through_gradients": {"iterations": 80, "restarts": 2},
    "gauss_newton": {"iterations": 15},
    "auto": {"iterations": 60},
    "graph_dlg": {"iterations": 60},
    "graph_tag": {"iterations": 80},
    "generative_prior": {"iterations": 80, "restarts": 2, "latent": 8, "width": 4, "epochs": 10},
    "class_fishing": {"target": 1, "iterations": 60},
    "geminio": {"target": 1, "iterations": 60, "epochs": 3},
    "scale_mia": {"steps": 40, "width": 8},
    "seer": {"steps": 20, "batches": 2, "coordinates": 64, "latent": 16},
    "feature_fishing": {"target": 1, "iterations": 60},
    "amortised_inverter": {"iterations": 60, "clients": 8, "sketch": 128, "hidden": 64},
}
"""Hyper-parameters with which an attack is done in about a second; without an entry, its defaults."""


def tokens_case(attack: Any) -> Case:
    """One picture and its gradient through a small vision transformer, which has tokens to solve for."""
    generator = torch.Generator().manual_seed(0)
    model = models.build("vit", input_shape=(1, 16, 16), num_classes=4, generator=generator, dim=32, depth=1).double()
    images = torch.rand(1, 1, 16, 16, generator=generator, dtype=torch.float64)
    truth = Batch({"images": images, "labels": torch.tensor([1])})
    gradient = torch.autograd.grad(cross_entropy(model(images), truth["labels"]), list(model.parameters()))
    domain = Images((1, 16, 16))
    return Case(Observation.from_gradients(model, cross_entropy, gradient, domain=domain, num_classes=4), truth)


def masked_case(attack: Any) -> Case:
    """One picture and its gradient through a small network, without the smaller half of every layer's entries."""
    generator = torch.Generator().manual_seed(0)
    model = models.build("mlp", input_shape=(1, 8, 8), num_classes=4, generator=generator, hidden=64).double()
    images = torch.rand(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    truth = Batch({"images": images, "labels": torch.tensor([1])})
    gradient = torch.autograd.grad(cross_entropy(model(images), truth["labels"]), list(model.parameters()))
    kept = [g * (g.abs() >= g.abs().flatten().median()) for g in gradient]
    domain = Images((1, 8, 8))
    return Case(Observation.from_gradients(model, cross_entropy, kept, domain=domain, num_classes=4), truth)


CASES: dict[str, Any] = {
    "low_rank_completion": masked_case,
    "token_solve": tokens_case,
    "feature_fishing": lambda attack: planted_case(attack, one_class=True),
}
"""What to attack, where the easy case is none for an attack."""

INSTANCES = {
    "images": [
        Images(shape=(1, 12, 12)),
        Images(shape=(3, 16, 20), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)),
        Images(shape=(1, 28, 28), low=-1.0, high=1.0),
    ],
    "graphs": [
        Graphs((4, 2, 1), nodes=6),
        Graphs((3, 5), nodes=4, degree_block=1, mean=(0.5, 0.2, 0.3, *[0.2] * 5), std=(0.5, 0.0, 0.1, *[0.4] * 5)),
    ],
}
"""Domains as their users build them."""

SETTINGS: dict[str, dict[str, Any]] = {
    "clip": {"norm": 0.1},
    "per_example_clip": {"norm": 0.1},
    "autoencoder_only": {"latent": 8, "width": 4, "autoencoder_epochs": 2},
    "latent_noise": {"latent": 8, "width": 4, "autoencoder_epochs": 2},
    "learnable_perturbation": {"latent": 8, "width": 4, "autoencoder_epochs": 2, "epochs": 1},
}
"""Settings with which a defense is quick, and acts on a small client; without an entry, its defaults."""

ATTACKS = [attacks.registry[name](**QUICK.get(name, {})) for name in attacks.registry]
DOMAINS = [instance for name in domains.registry for instance in INSTANCES[name]]


@pytest.mark.parametrize("check", attack_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack, check):
    check(attack, CASES[attack.name](attack) if attack.name in CASES else None)


@pytest.mark.parametrize("name", attacks.registry)
def test_an_attack_is_registered_under_its_own_name_and_builds_with_defaults(name):
    assert attacks.registry[name]().name == name


@pytest.mark.parametrize("name", QUICK)
def test_quick_settings_belong_to_an_attack(name):
    assert name in attacks.registry


@pytest.mark.parametrize("check", defense_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", defenses.registry)
def test_defense(name, check):
    check(defenses.registry[name](**SETTINGS.get(name, {})))


@pytest.mark.parametrize("check", domain_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: f"{domain.name}{domain.shape}")
def test_domain(domain, check):
    check(domain)


@pytest.mark.parametrize("check", guard_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", guards.registry)
def test_guard(name, check):
    check(guards.registry[name])


@pytest.mark.parametrize("name", guards.registry)
def test_a_guard_is_registered_under_its_own_name(name):
    assert guards.registry[name]().name == name
