"""Which rebuilt image belongs to which true one: the permutation defects of other tools are not here."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from invertigo.domains import Images
from invertigo.domains.image_metrics import psnr
from invertigo.domains.matching import match, squared_distances
from invertigo.types import Batch


def pictures(n, shape=(3, 8, 8), seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_are_mean_squared_errors():
    left, right = pictures(4).flatten(1), pictures(5, seed=1).flatten(1)
    expected = torch.from_numpy(cdist(left.numpy(), right.numpy(), "sqeuclidean")) / left.shape[1]
    torch.testing.assert_close(squared_distances(left, right), expected)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_the_assignment_is_the_cheapest_of_all(truths, guesses, seed):
    cost = torch.rand(truths, guesses, generator=torch.Generator().manual_seed(seed))
    matching = match(cost)
    chosen = [(i, j) for i, j in enumerate(matching.tolist()) if j >= 0]
    assert len(chosen) == min(truths, guesses) == len({j for _, j in chosen})
    short, flip = (cost, False) if truths <= guesses else (cost.T, True)
    cheapest = min(
        sum(short[i, j].item() for i, j in enumerate(order))
        for order in itertools.permutations(range(short.shape[1]), short.shape[0])
    )
    assert flip is (truths > guesses)
    assert sum(cost[i, j].item() for i, j in chosen) == pytest.approx(cheapest)


@pytest.mark.parametrize("shift", [0, 1, 2, 4])
def test_a_cyclic_order_scores_as_the_plain_one(shift):
    """The permutation must be applied to the reconstruction, not its inverse: 5 images shifted by 1 tell them apart."""
    domain, truth = Images((3, 8, 8)), pictures(5)
    near = (truth + 0.01 * pictures(5, seed=1)).clamp(0, 1)
    plain = domain.score(Batch({"images": truth}), {"images": near})
    mixed = domain.score(Batch({"images": truth}), {"images": near.roll(shift, 0)})
    for metric, expected in plain.per_example.items():
        torch.testing.assert_close(mixed.per_example[metric], expected)
    torch.testing.assert_close(near.roll(shift, 0)[mixed.matching], near)


@settings(max_examples=25)
@given(st.permutations(range(6)), st.permutations(range(6)))
def test_scores_follow_the_truth_whatever_the_orders(true_order, guess_order):
    domain, truth = Images((1, 6, 6)), pictures(6, (1, 6, 6))
    guess = (truth + 0.2 * (pictures(6, (1, 6, 6), 1) - 0.5)).clamp(0, 1)
    plain = domain.score(Batch({"images": truth}), {"images": guess})
    mixed = domain.score(Batch({"images": truth[true_order]}), {"images": guess[guess_order]})
    for metric, expected in plain.per_example.items():
        torch.testing.assert_close(mixed.per_example[metric], expected[true_order])


def test_mean_psnr_is_the_mean_over_images_not_that_of_the_batch_nor_a_sum():
    domain, truth = Images((1, 8, 8)), torch.tensor([0.3, 0.7]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    guess = truth + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    scores = domain.score(Batch({"images": truth}), {"images": guess})
    assert scores.per_example["psnr"].tolist() == pytest.approx([20, 40], abs=1e-4)
    assert scores.mean("psnr") == pytest.approx(30, abs=1e-4)


def test_scores_are_taken_on_pixels_not_on_what_the_model_reads():
    pixels, error = pictures(2) * 0.8 + 0.1, 0.05
    plain, normalised = Images((3, 8, 8)), Images((3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    truth = {"images": normalised.from_pixels(pixels)}
    guess = {"images": normalised.from_pixels(pixels + error)}
    found = normalised.score(Batch(truth), guess).per_example
    expected = plain.score(Batch({"images": pixels}), {"images": pixels + error}).per_example
    assert found["psnr"].tolist() == pytest.approx([26.0206] * 2, abs=1e-3)
    for metric in expected:
        torch.testing.assert_close(found[metric], expected[metric])


def test_bytes_score_like_unit_pixels():
    pixels = pictures(2)
    in_bytes = Images((3, 8, 8), high=255.0).score(Batch({"images": pixels * 255}), {"images": pixels.flip(-1) * 255})
    in_units = Images((3, 8, 8)).score(Batch({"images": pixels}), {"images": pixels.flip(-1)})
    for metric, expected in in_units.per_example.items():
        torch.testing.assert_close(in_bytes.per_example[metric], expected)


def test_truths_without_a_guess_are_scored_against_mid_grey():
    domain, truth = Images((3, 8, 8)), pictures(4)
    scores = domain.score(Batch({"images": truth}), {"images": truth[[2, 0]]})
    assert scores.matching.tolist() == [1, -1, 0, -1]
    against_grey = psnr(truth, torch.full_like(truth, 0.5))
    torch.testing.assert_close(scores.per_example["psnr"][[1, 3]], against_grey[[1, 3]])
    assert scores.per_example["psnr"][[0, 2]].min() == 160


def test_surplus_guesses_are_left_over():
    domain, truth = Images((3, 8, 8)), pictures(3)
    scores = domain.score(Batch({"images": truth}), {"images": torch.cat([pictures(2, seed=7), truth.flip(0)])})
    assert scores.matching.tolist() == [4, 3, 2]


def test_in_order_returns_the_rebuilt_images_in_the_order_of_the_truth():
    domain, truth = Images((3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3), pictures(3)
    images = domain.from_pixels(truth)
    scores = domain.score(Batch({"images": images}), {"images": images[[2, 1]]})
    ordered = domain.in_order({"images": images[[2, 1]]}, scores.matching)["images"]
    torch.testing.assert_close(ordered[1:], images[1:])
    torch.testing.assert_close(domain.to_pixels(ordered[0]), torch.full((3, 8, 8), 0.5, dtype=torch.float64))
