"""The real sets, where this machine has them."""

import os

import pytest
import torch
from PIL import Image

from invertigo import data

pytestmark = pytest.mark.skipif(not os.environ.get("INVERTIGO_DATA"), reason="INVERTIGO_DATA is not set")


def held(relative: str) -> None:
    if not os.path.exists(os.path.join(os.environ["INVERTIGO_DATA"], relative)):
        pytest.skip(f"no {relative} in INVERTIGO_DATA")


def test_cifar10_takes_the_classes_in_turn_and_decodes_lazily(monkeypatch):
    held("cifar10/train")
    opened = []
    open_image = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: opened.append(args) or open_image(*args, **kwargs))
    found = data.load("cifar10", limit=20)
    assert 20 <= len(opened) <= 40
    assert found.images.shape == (20, 3, 32, 32)
    assert found.labels.tolist() == [*range(10), *range(10)]
    assert found.classes[3] == "cat"
    assert 0.3 < found.images.mean() < 0.7


def test_mnist_is_a_digit_set():
    held("mnist/t10k-images-idx3-ubyte.gz")
    found = data.load("mnist", split="test", limit=1000)
    assert found.images.shape == (1000, 1, 28, 28)
    # The published test set starts with 7, 2, 1, 0, 4.
    assert found.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert found.images.mean().item() == pytest.approx(0.13, abs=0.02)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pneumoniamnist(split):
    held("medmnist/pneumoniamnist.npz")
    found = data.load("pneumoniamnist", split=split)
    assert found.shape == (1, 28, 28)
    assert set(found.labels.tolist()) == {0, 1}
    # Three quarters of the children had pneumonia; more would mean that the classes are swapped.
    assert (found.labels == 1).float().mean() > 0.6
    assert torch.isfinite(found.images).all()
