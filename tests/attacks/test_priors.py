"""Priors against plain loops, on any number of channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invertigo.attacks.matching.priors import (
    BatchNormStatistics,
    Belief,
    GroupConsistency,
    ImageNorm,
    TotalVariation,
)


def images(restarts: int = 2, channels: int = 3, seed: int = 0) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.rand(restarts, 2, channels, 5, 6, generator=gen, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_anisotropic_total_variation(channels: int) -> None:
    x = images(channels=channels)
    across = [abs(x[0, b, c, i, j + 1] - x[0, b, c, i, j]) for b in range(2) for c in range(channels)
              for i in range(5) for j in range(5)]  # fmt: skip
    down = [abs(x[0, b, c, i + 1, j] - x[0, b, c, i, j]) for b in range(2) for c in range(channels)
            for i in range(4) for j in range(6)]  # fmt: skip
    expected = 0.3 * (sum(across) / len(across) + sum(down) / len(down))
    assert TotalVariation(0.3)(Belief(x, {}, None))[0].item() == pytest.approx(float(expected))


def test_isotropic_total_variation() -> None:
    x = images(channels=1)
    lengths = [
        ((x[1, b, 0, i + 1, j] - x[1, b, 0, i, j]) ** 2 + (x[1, b, 0, i, j + 1] - x[1, b, 0, i, j]) ** 2).sqrt()
        for b in range(2) for i in range(4) for j in range(5)
    ]  # fmt: skip
    penalty = TotalVariation(1.0, isotropic=True)(Belief(x, {}, None))[1]
    assert penalty.item() == pytest.approx(float(sum(lengths) / len(lengths)), abs=1e-7)


def test_a_flat_image_has_finite_derivatives() -> None:
    x = torch.full((1, 1, 1, 4, 4), 0.5, requires_grad=True)
    statistics = {"bn": (x.mean((0, 1, 3, 4))[None], x.var((0, 1, 3, 4))[None])}
    known = {"bn": (torch.tensor([0.5]), torch.tensor([0.0]))}
    belief = Belief(x, statistics, known)
    total = TotalVariation(1.0, isotropic=True)(belief) + BatchNormStatistics(1.0)(belief)
    (gradient,) = torch.autograd.grad(total.sum(), x)
    assert gradient.isfinite().all()


def test_image_norm_is_the_mean_square() -> None:
    x = images()
    torch.testing.assert_close(ImageNorm(2.0)(Belief(x, {}, None)), 2 * (x**2).flatten(1).mean(1))


def test_batchnorm_statistics_weigh_the_first_layer() -> None:
    simulated = {
        "first": (torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)),
        "second": (torch.zeros(1, 1), torch.ones(1, 1)),
    }
    known = {"first": (torch.zeros(2), torch.zeros(2)), "second": (torch.zeros(1), torch.zeros(1))}
    value = BatchNormStatistics(0.1, first_factor=10.0)(Belief(torch.zeros(1, 1, 1, 2, 2), simulated, known))
    assert value.item() == pytest.approx(0.1 * (10 * 5 + 1))


def test_group_consistency_ignores_translation() -> None:
    x = images(restarts=1)
    shifted = torch.cat([x, x.roll((1, 2), (-2, -1)), x])
    assert GroupConsistency(1.0)(Belief(shifted, {}, None))[0].item() == pytest.approx(0, abs=1e-12)
    assert GroupConsistency(1.0)(Belief(images(restarts=3), {}, None)).min().item() > 0.01


def test_group_consistency_needs_company() -> None:
    assert GroupConsistency(1.0)(Belief(images(restarts=1), {}, None)).item() == 0
