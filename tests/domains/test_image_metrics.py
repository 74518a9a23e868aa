"""MSE, PSNR and SSIM against scikit-image, and their properties."""

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from invertigo.domains.image_metrics import HIGHEST_PSNR, mse, psnr, ssim


def pair(shape, seed=0, noise=0.1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(shape, generator=generator, dtype=torch.float64)
    truth = (truth + truth.roll(1, -1) + truth.roll(1, -2)) / 3  # neighbours resemble one another, as in pictures
    guess = (truth + noise * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return truth.to(dtype), guess.to(dtype)


def reference_ssim(truth, guess, sigma):
    return structural_similarity(
        truth.double().numpy(),
        guess.double().numpy(),
        gaussian_weights=True,
        sigma=sigma,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=0,
    )


@pytest.mark.parametrize("shape", [(2, 1, 11, 11), (2, 3, 32, 32), (1, 4, 12, 40), (3, 1, 25, 25)])
def test_ssim_is_that_of_scikit_image(shape):
    truth, guess = pair(shape)
    expected = [reference_ssim(t, g, 1.5) for t, g in zip(truth, guess)]
    numpy.testing.assert_allclose(ssim(truth, guess).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("side", "window"), [(10, 9), (9, 9), (8, 7), (6, 5), (3, 3)])
def test_the_window_shrinks_to_small_images(side, window):
    truth, guess = pair((2, 2, side, side + 1))
    expected = [reference_ssim(t, g, 1.5 * window / 11) for t, g in zip(truth, guess)]
    numpy.testing.assert_allclose(ssim(truth, guess).numpy(), expected, rtol=0, atol=1e-12)


def test_psnr_is_that_of_scikit_image_for_each_image_alone():
    truth, guess = pair((5, 3, 9, 9))
    guess[0] = truth[0] + 0.3
    expected = [peak_signal_noise_ratio(t.numpy(), g.numpy(), data_range=1.0) for t, g in zip(truth, guess)]
    numpy.testing.assert_allclose(psnr(truth, guess).numpy(), expected, rtol=1e-12)


def test_the_same_picture_scores_finitely():
    truth, _ = pair((2, 1, 8, 8))
    assert psnr(truth, truth).tolist() == [HIGHEST_PSNR] * 2
    assert mse(truth, truth).tolist() == [0, 0]
    torch.testing.assert_close(ssim(truth, truth), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_the_dtype_of_the_images_is_kept(measure):
    truth, guess = pair((2, 3, 16, 16), dtype=torch.float32)
    assert measure(truth, guess).dtype == torch.float32
    torch.testing.assert_close(
        measure(truth, guess).double(), measure(truth.double(), guess.double()), rtol=1e-4, atol=1e-5
    )


@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 99))
def test_metrics_are_symmetric_and_within_their_ranges(channels, height, width, noise, seed):
    truth, guess = pair((2, channels, height, width), seed, noise)
    for measure, low, high in ((mse, 0, 1), (psnr, 0, HIGHEST_PSNR), (ssim, -1, 1)):
        score = measure(truth, guess)
        assert score.shape == (2,)
        assert torch.allclose(score, measure(guess, truth))
        assert all(low - 1e-9 <= value <= high + 1e-9 and math.isfinite(value) for value in score.tolist())


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_an_image_scores_the_same_alone_as_in_a_batch(measure):
    truth, guess = pair((4, 3, 16, 16))
    alone = torch.cat([measure(truth[i : i + 1], guess[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(measure(truth, guess), alone)
