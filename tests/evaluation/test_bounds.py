"""Identifiability on linear maps of known rank, on a network, and the bound against estimators that reach it."""

import math

import pytest
import torch

from invertigo.evaluation import identifiability
from invertigo.types import InvalidValueError, MismatchError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script:DeprecationWarning"
)  # PyTorch's own, in forward mode


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("observed", "rank"), [(30, 12), (30, 7), (8, 8), (8, 3), (12, 12)])
def test_the_rank_of_a_linear_map(observed, rank):
    matrix = random(observed, rank) @ random(rank, 12, seed=1)
    found = identifiability(lambda x: matrix @ x, random(12, seed=2))
    assert (found.rank, found.unknowns) == (rank, 12)
    assert found.identified is (rank == 12)
    expected = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(found.singular_values, expected)


def test_columns_and_rows_give_the_same_spectrum_in_any_chunk():
    matrix = random(9, 9)
    square = identifiability(lambda x: (matrix @ x).sin(), random(9, seed=1), chunk=2)
    wide = identifiability(lambda x: (matrix @ x).sin()[:8], random(9, seed=1), chunk=3)
    jacobian = (matrix @ random(9, seed=1)).cos()[:, None] * matrix
    torch.testing.assert_close(square.singular_values, torch.linalg.svdvals(jacobian))
    torch.testing.assert_close(wide.singular_values, torch.linalg.svdvals(jacobian[:8]))


def test_least_squares_reaches_the_bound_on_a_linear_map():
    matrix, truth, noise = random(20, 5), random(5, seed=1), 0.1
    bound = identifiability(lambda x: matrix @ x, truth).mse_bound(noise)
    received = (matrix @ truth)[:, None] + noise * random(20, 20_000, seed=2)
    estimates = torch.linalg.lstsq(matrix, received).solution
    assert (estimates - truth[:, None]).square().mean().item() == pytest.approx(bound, rel=0.05)


def test_the_posterior_mean_reaches_the_bayesian_bound():
    matrix, noise, prior = random(3, 3) @ random(3, 6, seed=1), 0.5, 0.7  # rank 3 of 6 unknowns
    bound = identifiability(lambda x: matrix @ x, random(6)).mse_bound(noise, prior)
    truths = prior * random(6, 20_000, seed=2)
    received = matrix @ truths + noise * random(3, 20_000, seed=3)
    precision = matrix.T @ matrix / noise**2 + torch.eye(6, dtype=torch.float64) / prior**2
    estimates = torch.linalg.solve(precision, matrix.T @ received / noise**2)
    assert (estimates - truths).square().mean().item() == pytest.approx(bound, rel=0.05)


def test_unidentified_entries_are_bounded_by_the_prior_alone():
    matrix = random(2, 4)
    found = identifiability(lambda x: matrix @ x, random(4))
    assert found.mse_bound(0.1) == math.inf
    assert found.mse_bound(0.0, prior_std=0.5) == pytest.approx(0.25 * 2 / 4)
    assert found.mse_bound(1e6, prior_std=0.5) == pytest.approx(0.25)


def gradient_of(weight, label):
    """Flat gradient, with respect to (weight, bias), of a linear softmax classifier on one or several flat inputs."""

    def loss(weight, bias, x):
        return torch.nn.functional.cross_entropy(x @ weight.T + bias, label)

    def update(flat):
        bias = torch.zeros(len(weight), dtype=weight.dtype)
        grads = torch.func.grad(loss, argnums=(0, 1))(weight, bias, flat.view(len(label), -1))
        return torch.cat([g.flatten() for g in grads])

    return update


def test_a_linear_layer_identifies_one_input_but_not_two_of_one_class_in_two_classes():
    weight = random(2, 6)
    assert identifiability(gradient_of(weight, torch.tensor([0])), random(6, seed=1)).identified
    pair = identifiability(gradient_of(weight, torch.tensor([0, 0])), random(12, seed=1))
    assert not pair.identified
    assert pair.rank <= 7


@pytest.mark.usefixtures("untyped")
def test_requests_that_make_no_sense_are_refused():
    with pytest.raises(MismatchError, match="flat"):
        identifiability(lambda x: x, random(2, 2))
    with pytest.raises(InvalidValueError, match="too large"):
        identifiability(lambda x: x.expand(20_000, -1).flatten(), random(100))
    with pytest.raises(InvalidValueError, match="noise=-1"):
        identifiability(lambda x: x, random(2)).mse_bound(-1.0)
