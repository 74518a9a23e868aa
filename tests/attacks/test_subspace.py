"""Row spaces: rank, members, strangers, probes and hidden coordinates, against plain least squares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invertigo.attacks.subspace import noise_singular_value, row_space


def low_rank(rank, rows=40, dim=60, dtype=torch.float64, seed=0, spread=0.0):
    """`rows` mixtures of `rank` random rows whose strengths fall by 10^spread, and those rows."""
    generator = torch.Generator().manual_seed(seed)
    members = torch.randn(rank, dim, generator=generator, dtype=torch.float64)
    mix = torch.randn(rows, rank, generator=generator, dtype=torch.float64) * 10 ** torch.linspace(0, -spread, rank)
    return (mix @ members).to(dtype), members


def least_squares_distance(rows, vector):
    rest = vector - rows.T @ np.linalg.lstsq(rows.T, vector, rcond=1e-10)[0]
    return np.linalg.norm(rest) / np.linalg.norm(vector)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 80), st.integers(0, 10**6))
def test_rank_bases_and_distances(rank, rows, seed):
    matrix, members = low_rank(rank, rows, 40, seed=seed)
    space = row_space(matrix)
    assert space.rank == min(rank, rows)
    both = torch.cat([space.basis, space.null])
    torch.testing.assert_close(both @ both.T, torch.eye(40, dtype=torch.float64))
    strangers = torch.randn(5, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for vector in strangers:
        wanted = least_squares_distance(matrix.numpy(), vector.numpy())
        assert float(space.distance(vector)) == pytest.approx(wanted, abs=1e-6)
    if rank <= rows:
        assert space.distance(members).max() < space.tolerance


def test_single_precision_keeps_weak_members():
    matrix, members = low_rank(20, dtype=torch.float32, spread=3.0)
    space = row_space(matrix)
    assert space.rank == 20
    assert space.distance(members).max() < space.tolerance
    assert space.confidence > 0.3


@pytest.mark.parametrize("rank", [5, 40, 90, 150])
def test_a_large_matrix_has_the_spaces_that_a_plain_decomposition_gives(rank):
    """Few directions are looked for first, then more; the rank exceeds each of these in turn."""
    matrix, members = low_rank(rank, rows=300, dim=260, dtype=torch.float32, spread=2.0)
    space = row_space(matrix)
    assert space.rank == rank
    assert space.distance(members).max() < space.tolerance
    values, right = torch.linalg.svd(matrix.double(), full_matrices=False)[1:]
    torch.testing.assert_close(space.values[:rank], values[:rank])
    torch.testing.assert_close(space.projector, right[:rank].T @ right[:rank], atol=1e-8, rtol=0)
    assert values[rank] / 2 < space.values[rank] <= values[rank] * (1 + 1e-6)
    torch.testing.assert_close(space.null @ space.null.T, torch.eye(260 - rank, dtype=torch.float64))
    assert (space.null @ space.basis.T).abs().max() < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_a_large_matrix_shows_nearly_all_of_its_noise(seed):
    """A tolerance that rests on less than the noise there is would turn members away."""
    generator = torch.Generator().manual_seed(seed)
    noise = 1e-6 * torch.randn(300, 300, generator=generator, dtype=torch.float64)
    matrix = low_rank(6, rows=300, dim=300, seed=seed)[0] + noise
    own = row_space(matrix, noise=1e-9, rank=6)
    assert 0.88 < own.noise / float(torch.linalg.svdvals(matrix)[6]) < 1.001


def test_the_zero_matrix_and_the_full_space():
    assert row_space(torch.zeros(3, 5)).rank == 0
    whole = row_space(torch.eye(4, dtype=torch.float64))
    assert whole.full
    assert whole.distance(torch.ones(4, dtype=torch.float64)) == 0


def test_distance_of_zero_is_zero_and_batches_keep_their_shape():
    space = row_space(low_rank(3)[0])
    assert space.distance(torch.zeros(2, 7, 60)).shape == (2, 7)
    assert not space.distance(torch.zeros(2, 7, 60)).any()


def test_residuals_add_up():
    space = row_space(low_rank(5)[0])
    parts = torch.randn(4, 60, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(space.residual(parts.sum(0)), space.residual(parts).sum(0))
    torch.testing.assert_close(space.residual(parts).norm(dim=1) / parts.norm(dim=1), space.distance(parts))


def test_probes_are_orthonormal_and_orthogonal_to_members():
    matrix, members = low_rank(5)
    probes = row_space(matrix).probes(8)
    torch.testing.assert_close(probes.T @ probes, torch.eye(8, dtype=torch.float64))
    assert (members @ probes).abs().max() < 1e-10
    assert row_space(matrix).probes(999).shape == (60, 55)


def test_some_coordinates_are_enough_while_there_are_more_than_the_rank():
    matrix, members = low_rank(10)
    seen = list(range(0, 60, 4))
    part = row_space(matrix).restricted(seen)
    assert part.rank == 10
    assert part.distance(members[:, seen]).max() < 1e-8
    stranger = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert part.distance(stranger[seen]) > 0.1
    assert row_space(matrix).restricted(seen[:8]).full


def test_known_noise_sets_the_rank_and_the_tolerance():
    matrix, _members = low_rank(6)
    noise = 0.01 * torch.randn(matrix.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    space = row_space(matrix + noise, noise=noise_singular_value(0.01, matrix.shape))
    assert space.rank == 6
    assert torch.linalg.matrix_norm(noise, 2) < 1.05 * noise_singular_value(0.01, matrix.shape)
    assert 1e-4 < space.tolerance <= 1e-2
    assert space.projector.trace() == pytest.approx(6)
