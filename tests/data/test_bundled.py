"""The sets that need no files of their own."""

import socket

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from invertigo import data
from invertigo.data.photos import crop_boxes
from invertigo.types import InvalidValueError, UnknownNameError

IMAGES = [name for name in data.registry if isinstance(data.registry[name], data.ImageSource)]
BUNDLED = [name for name in IMAGES if data.registry[name].bundled]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a bundled set reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_the_bundled_sets_are_the_documented_ones():
    assert BUNDLED == ["digits", "faces", "microscopy", "photos", "six_photos"]


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("faces", (200, 1, 25, 25), ("face", "no face")),
        ("digits", (1797, 1, 8, 8), tuple("0123456789")),
        ("six_photos", (6, 3, 32, 32), ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")),
    ],
)
def test_shape_and_classes(name, shape, classes):
    found = data.load(name)
    assert found.images.shape == shape
    assert found.classes == classes
    assert found.shape == shape[1:]
    assert found.num_classes == len(classes)


@pytest.mark.parametrize("name", BUNDLED)
def test_pixels_are_floats_that_fill_the_unit_range(name):
    found = data.load(name)
    assert found.bundled
    assert found.licence
    assert found.images.dtype == torch.float32
    assert found.labels.dtype == torch.long
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.images.max() > 0.9


def test_the_first_hundred_patches_are_faces():
    # Oracle: a face is full of edges, most of the backgrounds are blurred or empty.
    faces = data.load("faces")
    assert faces.labels.tolist() == [0] * 100 + [1] * 100
    edges = faces.images.diff(dim=-1).abs().mean((1, 2, 3))
    assert edges[:100].median() > 2 * edges[100:].median()


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    raw = load_digits()
    digits = data.load("digits", limit=50)
    assert len(digits) == 50
    np.testing.assert_array_equal(digits.images[:, 0].numpy() * 16, raw.images[:50])
    np.testing.assert_array_equal(digits.labels.numpy(), raw.target[:50])


@pytest.mark.parametrize("name", BUNDLED)
def test_limit_gives_a_prefix_and_size_resizes(name):
    whole, some = data.load(name), data.load(name, limit=3)
    assert torch.equal(some.images, whole.images[:3])
    assert torch.equal(some.labels, whole.labels[:3])
    assert some.classes == whole.classes
    assert data.load(name, limit=2, size=48).images.shape[2:] == (48, 48)


def test_there_are_enough_photos_for_decoys_and_they_are_no_plain_sky():
    train, public = data.load("photos"), data.load("photos", split="public")
    assert len(train) >= 110
    assert len(public) >= 100
    assert set(train.labels.tolist()) == set(public.labels.tolist()) == set(range(6))
    assert train.images.mean(1).flatten(1).std(dim=1).min() > 0.035
    assert train.labels[:6].tolist() == list(range(6))


def test_no_two_photos_are_alike():
    images = torch.cat([data.load("photos").images, data.load("photos", split="public").images]).flatten(1)
    distances = torch.cdist(images, images).fill_diagonal_(torch.inf)
    assert distances.min() > 0.5


def test_loading_twice_gives_the_same_bits():
    assert torch.equal(data.load("photos", size=20).images, data.load("photos", size=20).images)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(300, 700), height=st.integers(300, 700), size=st.integers(1, 300))
def test_crops_share_no_pixel_within_or_across_splits(width, height, size):
    covered = np.zeros((height, width), int)
    boxes = crop_boxes(width, height, size)
    for left, top, right, bottom in [box for split in boxes.values() for box in split]:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left == bottom - top >= size
        covered[top:bottom, left:right] += 1
    assert boxes["train"]
    assert covered.max() == 1


def test_photos_are_lanczos_resized():
    from skimage.data import astronaut

    whole = Image.fromarray(astronaut()).crop((138, 0, 318, 180)).resize((32, 32), Image.Resampling.LANCZOS)
    expected = np.asarray(whole).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(data.load("six_photos").images[0].numpy(), expected, atol=1e-6)


def test_resized_grey_arrays_agree_with_byte_resizing():
    faces = data.load("faces", limit=2)
    small = data.load("faces", limit=2, size=12)
    for face, shrunk in zip(faces.images, small.images):
        image = Image.fromarray((face[0].numpy() * 255).round().astype(np.uint8))
        expected = np.asarray(image.resize((12, 12), Image.Resampling.LANCZOS)) / 255
        np.testing.assert_allclose(shrunk[0].numpy(), expected, atol=0.01)


@pytest.mark.parametrize("size", [301, 0, -3])
def test_senseless_sizes_are_refused(size):
    with pytest.raises(InvalidValueError, match=str(size)):
        data.load("photos", size=size)


def test_unknown_names_and_splits_get_a_suggestion(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'faces'"):
        data.load("faecs", root=tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean 'public'"):
        data.load("photos", split="pubic")


def test_a_missing_extra_is_named(monkeypatch):
    import sys

    from invertigo.types import MissingExtraError

    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(MissingExtraError, match=r"invertigo\[vision\]"):
        data.load("faces")


def test_importing_the_room_loads_no_optional_package():
    import subprocess
    import sys

    code = "import sys, invertigo.data; print({'skimage', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
