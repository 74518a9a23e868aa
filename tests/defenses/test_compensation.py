"""The server's compensation: a projection that a plain program agrees with, that takes noise back and leaves signal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invertigo.defenses import GradDefense
from invertigo.defenses.compensation import bulk, compensate
from invertigo.federation import aggregate, train_locally
from invertigo.types import InvalidValueError, LocalTraining


def by_numpy(flat, variance, ratio):
    """Eigenvectors of numpy's covariance, one eigenvalue after the other."""
    columns = int((len(flat) / ratio) ** 0.5)
    filled = np.concatenate([flat, np.zeros((-len(flat)) % columns)]).reshape(-1, columns)
    values, vectors = np.linalg.eig(np.cov(filled, rowvar=False))
    real = len(filled) / columns
    kept = np.zeros((columns, columns))
    for value, vector in zip(values.real, vectors.real.T):
        if not variance * (1 - real**-0.5) ** 2 < value < variance * (1 + real**-0.5) ** 2:
            kept += np.outer(vector, vector)
    return (filled @ kept).ravel()[: len(flat)]


@settings(max_examples=20, deadline=None)
@given(st.integers(60, 400), st.integers(0, 100), st.sampled_from([1.5, 3.0, 6.0]))
def test_it_is_the_projection_that_numpy_finds(count, seed, ratio):
    flat = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parts = {"a": flat[:20].view(4, 5), "b": flat[20:]}
    found = compensate(parts, 1.0, ratio=ratio)
    assert [tensor.shape for tensor in found.values()] == [(4, 5), (count - 20,)]
    joined = torch.cat([tensor.flatten() for tensor in found.values()]).numpy()
    np.testing.assert_allclose(joined, by_numpy(flat.numpy(), 1.0, ratio), atol=1e-8)


def test_pure_noise_lies_in_the_bulk_and_is_dropped():
    noise = {"a": 0.3 * torch.randn(60_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    assert compensate(noise, 0.09)["a"].square().sum() < 0.05 * noise["a"].square().sum()
    assert bulk(0.09, 6.0) == pytest.approx((0.0315, 0.1785), abs=1e-4)


def test_a_strong_signal_is_kept_and_nothing_changes_without_noise():
    generator = torch.Generator().manual_seed(1)
    rows, columns = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in (240, 40))
    signal = (rows @ columns.T).flatten()
    noisy = signal + 0.5 * torch.randn(9600, generator=generator, dtype=torch.float64)
    back = compensate({"a": noisy}, 0.25)["a"]
    assert (back - signal).norm() < 0.4 * (noisy - signal).norm()
    assert torch.allclose(compensate({"a": signal}, 0.0)["a"], signal)


def test_the_noise_of_a_mean_of_clients_is_known(client):
    task, batch = client
    defense, local = GradDefense(scale=0.7), LocalTraining()
    raw = train_locally(task, batch, local).tensors
    sent = [
        train_locally(task, batch, local, defense=defense, secret=torch.Generator().manual_seed(seed))
        for seed in range(4)
    ]
    mean = aggregate(sent).tensors
    error = torch.cat([(mean[name] - raw[name]).flatten() for name in raw])
    known = sum((1 / 4) ** 2 * defense.variance(local, 4) for _ in sent)
    assert error.square().mean().item() == pytest.approx(known, rel=0.1)
    steps = LocalTraining(sends="difference", epochs=3, batch_size=2, learning_rate=0.1)
    assert defense.variance(steps, 4) == pytest.approx(0.49 / 2 * 0.01 * 6)


def test_the_server_compensates_only_when_asked(client):
    task, batch = client
    mean = train_locally(task, batch, LocalTraining(), defense=GradDefense(scale=0.7)).tensors
    assert GradDefense(scale=0.7).on_aggregate(mean, LocalTraining(), [4, 4]) is mean
    changed = GradDefense(scale=0.7, compensation=True).on_aggregate(mean, LocalTraining(), [4, 12])
    expected = compensate(mean, (0.25**2 + 0.75**2) * 0.49 / 2)
    assert all(torch.equal(changed[name], expected[name]) for name in mean)
    assert any(not torch.equal(changed[name], mean[name]) for name in mean)


@pytest.mark.parametrize(("variance", "ratio"), [(-1.0, 6.0), (1.0, 1.0)])
def test_bad_settings_are_refused(variance, ratio):
    with pytest.raises(InvalidValueError, match="more rows than columns"):
        compensate({"a": torch.ones(100)}, variance, ratio=ratio)
