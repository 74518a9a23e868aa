"""Noise of known size: what it explains of a misfit, and which prior is chosen by it."""

import math

import pytest
import torch

from invertigo.attacks.matching.noise import inverse_variances, strongest_that_fits
from invertigo.attacks.matching.objectives import L1, Cosine, SquaredL2
from invertigo.attacks.matching.priors import Belief, Multiplied, TotalVariation


@pytest.mark.parametrize("objective", [SquaredL2(2.0), L1(), Cosine()], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("weighted", [False, True])
def test_noise_explains_the_misfit_of_the_truth(objective, weighted):
    generator = torch.Generator().manual_seed(0)
    stds = [0.5, 2.0]
    truth = [torch.randn(1, n, generator=generator, dtype=torch.float64) for n in (40_000, 20_000)]
    noisy = [t + s * torch.randn(t.shape, generator=generator, dtype=t.dtype) for t, s in zip(truth, stds)]
    weights = [torch.tensor(w, dtype=torch.float64) for w in (4.0, 0.25)] if weighted else None
    misfit = float(objective.value_and_cotangent(truth, noisy, weights)[0])
    assert objective.explained_by(noisy, stds, weights) == pytest.approx(misfit, rel=0.02)


def test_the_strongest_prior_that_still_fits_is_chosen():
    factors = torch.tensor([1.0, 3.0, 10.0, 30.0, 100.0])

    def chosen(*misfits):
        return strongest_that_fits(torch.tensor(misfits), factors, explained=1.0, entries=20_000)

    assert chosen(0.9, 0.95, 0.99, 1.005, 1.2) == 3
    assert chosen(1.5, 1.505, 1.4, 1.41, 1.6) == 3  # none comes as near as the noise would let it
    assert chosen(0.9, 0.9, math.nan, math.nan, 9.0) == 1


def test_layers_weigh_by_the_inverse_of_their_noise_where_it_differs():
    update = {"a": torch.ones(10), "b": torch.ones(10)}
    assert inverse_variances(None, {"a": 0.3, "b": 0.3}, update, update) is None
    assert inverse_variances(None, {"a": 1e-9, "b": 2e-9}, update, update) is None  # attacks leave more than that
    a, b = inverse_variances(None, {"a": 0.3, "b": 1.0}, update, update)
    assert float(a / b) == pytest.approx((1.0 + 0.01) / (0.09 + 0.01), rel=1e-5)


def test_each_restart_has_its_own_weight():
    images = torch.rand(3, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    prior = Multiplied(TotalVariation(0.5), torch.tensor([1.0, 3.0, 10.0]))
    plain = TotalVariation(0.5)(Belief(images, {}, None))
    assert torch.allclose(prior(Belief(images, {}, None)), plain * prior.factors)
    assert torch.allclose(prior.of(2)(Belief(images[2:], {}, None)), 10 * plain[2:])
