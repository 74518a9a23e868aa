"""The perceptual distance orders pictures as people do, where the pixel error does not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import lfw_subset
from skimage.filters import gaussian

from invertigo.domains.image_metrics import mse
from invertigo.domains.perceptual import perceptual_distance


@pytest.fixture(scope="module")
def faces():
    return torch.from_numpy(lfw_subset()[:6]).double().unsqueeze(1)


def blurred(images, sigma):
    return torch.stack([torch.from_numpy(gaussian(image[0].numpy(), sigma)).unsqueeze(0) for image in images])


def noisy(images, sigma, seed=0):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=images.dtype)
    return (images + sigma * noise).clamp(0, 1)


def test_the_same_picture_is_at_distance_zero(faces):
    assert perceptual_distance(faces, faces).max() < 1e-12


def test_it_grows_with_blur_and_with_noise(faces):
    for degraded in (blurred, noisy):
        levels = (0.5, 1, 2, 4) if degraded is blurred else (0.05, 0.1, 0.2, 0.4)
        distances = torch.stack([perceptual_distance(faces, degraded(faces, level)) for level in levels])
        assert (distances.diff(dim=0) > 0).all()


def test_a_flat_picture_or_noise_alone_is_far(faces):
    flat = torch.full_like(faces, 0.5)
    static = torch.rand(faces.shape, generator=torch.Generator().manual_seed(0), dtype=faces.dtype)
    assert perceptual_distance(faces, flat).min() > 0.5
    assert perceptual_distance(faces, static).min() > 0.45


def test_a_small_shift_costs_little_though_its_pixel_error_is_large(faces):
    shifted = faces.roll((1, -2), (-2, -1))
    noise = noisy(faces, 0.1)
    assert (mse(faces, shifted) > mse(faces, noise)).all()
    assert perceptual_distance(faces, shifted).max() < 0.01
    assert perceptual_distance(faces, noise).min() > 0.05


def test_a_shift_within_a_larger_scene_is_tolerated_too(faces):
    wide = blurred(torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64), 1.5)
    wide = (wide - 0.5) * 4 + 0.5
    left, right = wide[..., 4:36, 4:36], wide[..., 5:37, 6:38]
    assert (perceptual_distance(left, right) < perceptual_distance(left, noisy(left, 0.2))).all()
    assert (mse(left, right) > mse(left, noisy(left, 0.2))).all()


@pytest.mark.parametrize("contrast", [0.2, 0.5, 1.5])
def test_brightness_and_contrast_are_forgiven(faces, contrast):
    assert perceptual_distance(faces, 0.3 + contrast * (faces - 0.5)).max() < 0.02


def test_contrast_too_faint_to_be_seen_is_not_forgiven(faces):
    assert perceptual_distance(faces, 0.5 + 0.01 * (faces - 0.5)).min() > 0.5


def test_noise_about_a_flat_truth_is_seen():
    flat = torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64)
    assert perceptual_distance(flat, noisy(flat, 0.2)).item() > 0.1
    assert perceptual_distance(flat, flat).item() == 0


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(2, 20), st.integers(2, 20), st.integers(0, 9))
def test_it_lies_between_zero_and_one_for_any_size(channels, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    truth, guess = torch.rand(2, 3, channels, height, width, generator=generator)
    distance = perceptual_distance(truth, guess)
    assert distance.shape == (3,)
    assert distance.dtype == torch.float32
    assert ((distance >= 0) & (distance <= 1)).all()


def test_large_pictures_are_looked_at_from_afar():
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, 100, 100, generator=generator)
    large = small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    speckle = (torch.arange(400) % 2 - 0.5) * 0.2  # finer than what remains at a quarter of the size
    assert perceptual_distance(large, large + speckle).item() < 0.05
