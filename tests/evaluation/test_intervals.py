"""Intervals against SciPy's bootstrap, textbook values and their own coverage."""

import numpy
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertigo.evaluation import bootstrap, paired_difference, proportion
from invertigo.types import InvalidValueError, MismatchError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def skewed(n, seed=0):
    return torch.empty(n, dtype=torch.float64).exponential_(generator=seeded(seed))


@pytest.mark.parametrize("n", [8, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_it_is_the_interval_of_scipy_up_to_resampling(n, confidence):
    values = skewed(n)
    found = bootstrap(values, generator=seeded(), resamples=20_000, confidence=confidence)
    expected = scipy.stats.bootstrap(
        (values.numpy(),), numpy.mean, n_resamples=20_000, confidence_level=confidence, method="BCa", rng=1
    ).confidence_interval
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03 * width)
    assert found.estimate == pytest.approx(values.mean().item())
    assert (found.n, found.confidence) == (n, confidence)


def test_it_takes_any_statistic_of_the_last_dimension():
    values = skewed(25)
    found = bootstrap(values, lambda v: v.quantile(0.9, dim=-1), generator=seeded())
    assert found.estimate == pytest.approx(numpy.quantile(values.numpy(), 0.9))
    assert found.low < found.estimate < found.high


def test_it_covers_the_true_mean_about_as_often_as_it_says():
    covered = 0
    for seed in range(150):
        found = bootstrap(skewed(25, seed), generator=seeded(seed), resamples=500, confidence=0.9)
        covered += found.low <= 1 <= found.high
    assert 0.8 <= covered / 150 <= 0.97


def test_the_same_generator_gives_the_same_interval_and_no_global_state_moves():
    before = torch.get_rng_state()
    assert bootstrap(skewed(10), generator=seeded(3)) == bootstrap(skewed(10), generator=seeded(3))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("values", [[3.5], [2.0, 2.0, 2.0]])
def test_without_spread_the_interval_is_the_estimate(values):
    found = bootstrap(torch.tensor(values), generator=seeded())
    assert (found.estimate, found.low, found.high, found.n) == (values[0], values[0], values[0], len(values))


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_the_interval_lies_within_the_values(values):
    found = bootstrap(torch.tensor(values, dtype=torch.float64), generator=seeded(), resamples=100)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_a_paired_difference_ignores_what_varies_between_examples():
    easy_and_hard = 100 * skewed(20)
    first, second = easy_and_hard + 1 + 0.1 * skewed(20, 1), easy_and_hard
    found = paired_difference(first, second, generator=seeded())
    assert 1 < found.low < found.estimate < found.high < 1.3


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (1, 1), (50, 200)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_proportions_have_the_interval_of_wilson(successes, n, confidence):
    found = proportion(successes, n, confidence)
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.low <= found.estimate == successes / n <= found.high


@pytest.mark.usefixtures("untyped")
def test_impossible_requests_are_refused():
    with pytest.raises(InvalidValueError, match="no examples"):
        bootstrap(torch.tensor([]), generator=seeded())
    with pytest.raises(InvalidValueError, match="95"):
        bootstrap(torch.ones(3), generator=seeded(), confidence=95)
    with pytest.raises(MismatchError, match="3 and 2"):
        paired_difference(torch.ones(3), torch.ones(2), generator=seeded())
    with pytest.raises(InvalidValueError, match="5 successes"):
        proportion(5, 3)
