"""Tensors as PNG files, read back with Pillow."""

import io

import numpy
import pytest
import torch
from PIL import Image

from invertigo.domains import Images
from invertigo.types import Batch


def opened(png):
    return Image.open(io.BytesIO(png))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGB"), (7, "RGB")])
def test_pixels_survive_the_file(channels, mode):
    domain = Images((channels, 5, 9), mean=(0.4,) * channels, std=(0.3,) * channels)
    pixels = torch.rand(2, channels, 5, 9, generator=torch.Generator().manual_seed(0))
    drawn = domain.render({"images": domain.from_pixels(pixels)})
    for png, image in zip(drawn, pixels):
        picture = opened(png)
        assert (picture.mode, picture.size) == (mode, (9, 5))
        shown = image[:3] if mode == "RGB" else image[:1]
        values = numpy.asarray(picture).reshape(5, 9, -1).transpose(2, 0, 1)
        numpy.testing.assert_allclose(values / 255, shown.numpy(), atol=0.5 / 255 + 1e-6)


def test_what_lies_outside_the_range_is_clamped_and_nan_is_grey():
    domain = Images((1, 1, 3))
    images = torch.tensor([[[[-5.0, 7.0, float("nan")]]]])
    assert numpy.asarray(opened(domain.render({"images": images})[0])).tolist() == [[0, 255, 128]]


def test_a_difference_grows_lighter_and_follows_the_matching():
    domain = Images((1, 2, 2))
    truth = Batch({"images": torch.zeros(2, 1, 2, 2)})
    guess = {"images": torch.stack([torch.full((1, 2, 2), 0.25), torch.tensor([[[0.0, 0.1], [0.5, 1.0]]])])}
    first, second = domain.difference(truth, guess, torch.tensor([1, 0]))
    light = numpy.asarray(opened(first).convert("L")).flatten()
    assert light[0] < light[1] < light[2] == light[3]
    assert len(numpy.unique(numpy.asarray(opened(second).convert("L")))) == 1
    assert opened(first).getpixel((0, 0)) == (68, 1, 84)
    assert opened(first).getpixel((0, 1)) == (253, 231, 37)
