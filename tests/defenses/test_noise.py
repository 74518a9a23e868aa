"""Noise on the update has the size it declares, and attackers who know that size rebuild more."""

import pytest
import torch
from scipy import stats

from invertigo import defenses
from invertigo.types import InvalidValueError


@pytest.mark.parametrize(
    ("defense", "std"),
    [
        (defenses.GaussianNoise(std=0.02), 0.02),
        (defenses.LaplaceNoise(scale=0.02), 0.02 * 2**0.5),
        (defenses.UserDP(clip=1e9, noise_multiplier=1e-11), 0.02),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_variance_of_the_noise_passes_a_chi_square_test(sent_and_raw, defense, std):
    sent, raw, _ = sent_and_raw(defense)
    noise = torch.cat([(sent[k] - raw[k]).flatten() for k in raw])
    if defense.name == "laplace_noise":  # |noise| / b is exponential, so twice its sum is chi-square with 2n degrees
        statistic, degrees = float(2 * (noise.abs() / 0.02).sum()), 2 * len(noise)
    else:
        statistic, degrees = float((noise / std).square().sum()), len(noise)
    low, high = stats.chi2.ppf([0.001, 0.999], degrees)
    assert low < statistic < high
    assert abs(float(noise.mean())) < 4 * std / len(noise) ** 0.5


def test_gaussian_and_laplacian_noise_differ_in_shape(sent_and_raw):
    for defense, reference in [
        (defenses.GaussianNoise(std=1.0), "norm"),
        (defenses.LaplaceNoise(scale=1.0), "laplace"),
    ]:
        sent, raw, _ = sent_and_raw(defense)
        noise = torch.cat([(sent[k] - raw[k]).flatten() for k in raw]).numpy()
        assert stats.kstest(noise, reference).pvalue > 1e-3
        assert stats.kstest(noise, {"norm": "laplace", "laplace": "norm"}[reference]).pvalue < 1e-6


@pytest.mark.parametrize("name", ["gaussian_noise", "laplace_noise"])
def test_relative_noise_follows_the_update_and_is_told_by_the_release(observed, name):
    defense = defenses.make(name, relative=True, **{defenses.registry[name].strength: 0.5})
    round_, raw = observed(defense, releases=4)
    entries = torch.cat([t.flatten() for t in raw.values()])
    expected = 0.5 * entries.square().mean().sqrt() * (2**0.5 if name == "laplace_noise" else 1)
    assert round_.traces[0].facts["noise_std"] == pytest.approx(float(expected), rel=1e-6)
    view = defense.adversary_view(round_.observation)
    assert set(view.noise_std) == set(raw)
    for left in view.noise_std.values():  # four releases halve it; the scale is estimated from a noisy update
        assert left == pytest.approx(float(expected) / 2, rel=0.1)


def test_averaging_releases_leaves_the_noise_that_the_view_says(observed):
    round_, raw = observed(defenses.GaussianNoise(std=0.1), releases=16)
    view = defenses.GaussianNoise(std=0.1).adversary_view(round_.observation)
    left = torch.cat([(view.update.tensors[k] - raw[k]).flatten() for k in raw])
    assert float(left.std()) == pytest.approx(0.1 / 4, rel=0.05)
    assert set(view.noise_std.values()) == {0.1 / 4}


@pytest.mark.parametrize(
    ("name", "setting"), [("gaussian_noise", "std"), ("laplace_noise", "scale"), ("dp_sgd", "noise_multiplier")]
)
def test_negative_noise_is_refused(name, setting):
    with pytest.raises(InvalidValueError, match=r"-0\.1.*nois"):
        defenses.make(name, **{setting: -0.1})


def test_no_noise_is_the_raw_update(sent_and_raw):
    sent, raw, trace = sent_and_raw(defenses.GaussianNoise(std=0.0))
    assert all(torch.equal(sent[k], raw[k]) for k in raw)
    assert trace.undefended
