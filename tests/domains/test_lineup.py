"""Identification: right when something was rebuilt, rare by luck when nothing was."""

import pytest
import torch
from skimage.data import lfw_subset
from sklearn.datasets import load_digits

from invertigo.domains import Images
from invertigo.domains.lineup import likeness
from invertigo.types import Batch

DIGITS = torch.from_numpy(load_digits().images).double().unsqueeze(1) / 16
FACES = torch.from_numpy(lfw_subset()).double().unsqueeze(1)


def identify(truth, guess, decoys):
    return Images(tuple(truth.shape[1:])).identify(
        Batch({"images": truth}), {"images": guess}, Batch({"images": decoys})
    )


def noise_like(images, seed=0):
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=images.dtype)


def test_likeness_is_the_correlation_without_shift():
    a, b = FACES[:3, :, :3, :3], FACES[3:7, :, :3, :3]  # an eighth of three pixels is none
    expected = torch.corrcoef(torch.cat([a, b]).flatten(1))[:3, 3:]
    torch.testing.assert_close(likeness(a, b), expected)


def test_likeness_looks_past_brightness_contrast_cast_and_small_shifts():
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cast = torch.tensor([0.1, -0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(
        likeness(images, 0.3 * images.roll((3, -2), (-2, -1)) + cast).diagonal(), torch.ones(3, dtype=torch.float64)
    )
    assert likeness(images, images.roll(6, -1)).max() < 0.5


def test_a_flat_image_is_like_nothing():
    for value in (0.0, 0.3, 1.0):
        assert likeness(FACES[:2], torch.full_like(FACES[:2], value)).abs().max() == 0


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_noisy_faces_are_identified_in_any_order(noise):
    truth = FACES[:8]
    guess = (truth + noise * noise_like(truth)).clamp(0, 1)
    found = identify(truth, guess.roll(3, 0), FACES[8:])
    assert found.decoys == 192
    assert found.identified.all()


def test_a_guess_without_information_is_rarely_identified_whatever_the_batch_size():
    """The best of several truths looks near: ranked against plain decoys, a quarter would be identified here."""
    generator, hits, naive, trials, batch = torch.Generator().manual_seed(0), 0, 0, 6, 30
    for _ in range(trials):
        order = torch.randperm(len(DIGITS), generator=generator)
        truth, guess, decoys = DIGITS[order[:batch]], DIGITS[order[-batch:]], DIGITS[order[batch : batch + 100]]
        hits += int(identify(truth, guess, decoys).identified.sum())
        scores = Images((1, 8, 8)).score(Batch({"images": truth}), {"images": guess})
        near = likeness(truth, guess).gather(1, scores.matching[:, None])
        naive += int((near > likeness(decoys, guess)[:, scores.matching].amax(0)[:, None]).sum())
    assert naive > 0.1 * trials * batch
    assert hits < 0.03 * trials * batch


def test_a_bland_guess_beside_it_does_not_hide_a_telling_one():
    truth = FACES[:2]
    decoys = FACES[2:100]
    mean = decoys.mean(0, keepdim=True)
    telling = (truth[1:] + 0.3 * noise_like(truth[1:])).clamp(0, 1)
    assert likeness(decoys, mean).max() > likeness(truth[1:], telling)
    assert identify(truth, torch.cat([mean, telling]), decoys).identified.tolist() == [False, True]


def test_flat_and_missing_guesses_come_last():
    truth, decoys = FACES[:2], FACES[2:50]
    assert identify(truth, torch.full_like(truth, 0.5), decoys).ranks.tolist() == [49, 49]
    assert identify(truth, truth[1:], decoys).ranks.tolist() == [49, 1]


def test_ties_count_against_the_truth():
    truth, decoys = FACES[:1], torch.cat([FACES[5:6] * 0.5, FACES[5:6]])  # alike up to contrast: one score
    assert identify(truth, FACES[5:6], decoys).ranks.tolist() == [3]
    twin = 0.5 * truth + 0.2  # the truth's own likeness, but another picture by its pixels
    assert identify(truth, truth, twin).ranks.tolist() == [2]


def test_copies_of_a_truth_are_no_decoys():
    truth = FACES[:3]
    nearly = truth + 0.002 * noise_like(truth)
    found = identify(truth, truth.roll(1, 0), torch.cat([truth, nearly, FACES[3:20]]))
    assert found.decoys == 17
    assert found.identified.all()


def test_labels_play_no_part():
    domain, truth = Images((1, 25, 25)), FACES[:3]
    noisy = {"images": truth + 0.3 * noise_like(truth)}
    with_labels = Batch({"images": truth, "labels": torch.tensor([0, 1, 2])})
    decoys = Batch({"images": FACES[3:60], "labels": torch.zeros(57, dtype=torch.long)})
    bare = domain.identify(Batch({"images": truth}), noisy, Batch({"images": FACES[3:60]}))
    assert domain.identify(with_labels, noisy, decoys).ranks.equal(bare.ranks)
