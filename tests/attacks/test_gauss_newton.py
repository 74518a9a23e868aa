"""Gauss–Newton: exact where the update determines the image, honest where it does not."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo import data, models
from invertigo.attacks import DLG, GaussNewton
from invertigo.attacks.matching.levenberg_marquardt import conjugate_gradients
from invertigo.domains import Images
from invertigo.federation import observe
from invertigo.types import LocalTraining, Observation, Task, ThreatLevel

Watched = Callable[..., tuple]


def psnr(observation: Observation, truth: object, result: object) -> list[float]:
    return observation.task.domain.score(truth, result.fields).per_example["psnr"].tolist()  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize("activation", ["sigmoid", "gelu"])
@pytest.mark.parametrize("example", [0, 150])
def test_a_face_comes_back_to_rounding(watched: Watched, activation: str, example: int) -> None:
    observation, truth = watched("lenet", [example], activation=activation)
    result = GaussNewton().reconstruct(observation, generator=torch.Generator().manual_seed(0))
    assert result.stopped == "converged"
    assert result.labels_inferred
    assert psnr(observation, truth, result)[0] > 100
    assert not result.notes


def test_convergence_is_quadratic_at_the_end(watched: Watched) -> None:
    observation, _ = watched("lenet", [0], activation="gelu")
    result = GaussNewton().reconstruct(observation, generator=torch.Generator().manual_seed(0))
    last = [value for _, value in result.trace][-3:]
    assert last[1] < 1e-3 * last[0]


def test_a_kinked_network_is_approached_by_first_order_steps(watched: Watched) -> None:
    observation, truth = watched("lenet", [0], activation="relu")
    approached = GaussNewton(iterations=10).reconstruct(observation, generator=torch.Generator().manual_seed(0))
    direct = GaussNewton(iterations=10, approach=0).reconstruct(observation, generator=torch.Generator().manual_seed(0))
    assert psnr(observation, truth, approached)[0] > psnr(observation, truth, direct)[0] + 5


def test_a_vanished_residual_with_many_solutions_is_reported(watched: Watched) -> None:
    """625 pixels through five hidden neurons: many images have this update."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(625, 40, bias=False), nn.Sigmoid(), nn.Linear(40, 2))
        for parameter in model[1].parameters():
            parameter.requires_grad_(False)
    observation, truth = watched(model, [0])
    result = GaussNewton().reconstruct(observation, generator=torch.Generator().manual_seed(0))
    assert result.objective < 1e-12
    assert any(note.startswith("unidentified") for note in result.notes)
    assert psnr(observation, truth, result)[0] < 40


def test_conjugate_gradients_solve_each_row() -> None:
    gen = torch.Generator().manual_seed(0)
    root = torch.randn(3, 6, 6, generator=gen, dtype=torch.float64)
    matrix = root @ root.mT + torch.eye(6, dtype=torch.float64)
    right = torch.randn(3, 6, generator=gen, dtype=torch.float64)
    solved = conjugate_gradients(lambda v: torch.einsum("rij,rj->ri", matrix, v), right, 50, 1e-12)
    torch.testing.assert_close(solved, torch.linalg.solve(matrix, right))


def deep_leakage(index: int, cifar10: data.ImageSet) -> tuple:
    """The setting of Deep Leakage from Gradients: sigmoid LeNet, weights from uniform(-0.5, 0.5), float64."""
    model = models.build(
        "lenet", input_shape=(3, 32, 32), num_classes=10, generator=torch.Generator().manual_seed(index), init="uniform"
    ).double()
    truth = cifar10.batch([index]).to(dtype=torch.float64)
    task = Task(model, F.cross_entropy, Images((3, 32, 32)), num_classes=10)
    return observe(task, truth, LocalTraining(), level=ThreatLevel.UPDATE), truth


@pytest.mark.slow
def test_deep_leakage_setting(shared_data: Path) -> None:
    cifar10 = data.load("cifar10", root=shared_data, limit=8)
    reached: dict[str, list[float]] = {"dlg": [], "gauss_newton": []}
    for index in range(8):
        observation, truth = deep_leakage(index, cifar10)
        for attack in (DLG(iterations=2000, restarts=8), GaussNewton(iterations=14)):
            result = attack.reconstruct(observation, generator=torch.Generator().manual_seed(0))
            reached[attack.name] += psnr(observation, truth, result)
    assert statistics.median(reached["dlg"]) >= 25
    assert statistics.median(reached["gauss_newton"]) >= 60
