"""Patches of tissue and retina: what their labels say, and that the splits share no pixel."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2hed

from invertigo import data
from invertigo.types import InvalidValueError


@pytest.fixture(scope="module")
def patches():
    return data.load("microscopy")


def test_enough_of_every_class(patches):
    assert patches.shape == (3, 16, 16)
    counts = torch.bincount(patches.labels, minlength=4)
    assert len(counts) == 4
    assert counts.min() >= 40


def test_stained_patches_hold_more_of_the_stain(patches):
    # Oracle: scikit-image unmixes the stains; DAB is the third.
    def dab(label):
        chosen = patches.images[patches.labels == label][:60].permute(0, 2, 3, 1).numpy()
        return np.array([rgb2hed(patch)[..., 2].mean() for patch in chosen])

    assert dab(1).min() > np.median(dab(0))
    assert np.median(dab(1)) > 2 * np.median(dab(0))


def test_patches_with_vessels_have_more_edges(patches):
    edges = patches.images[:, 1].diff(dim=-1).abs().mean((1, 2))
    assert edges[patches.labels == 3].median() > 1.5 * edges[patches.labels == 2].median()


def test_retina_is_red_and_tissue_is_not(patches):
    red = patches.images[:, 0].mean((1, 2)) - patches.images[:, 2].mean((1, 2))
    assert red[patches.labels >= 2].min() > red[patches.labels == 0].max()


def test_splits_are_different_pictures(patches):
    public = data.load("microscopy", split="public")
    distances = torch.cdist(patches.images.flatten(1), public.images.flatten(1))
    assert distances.min() > 0.02
    assert abs(len(public) - len(patches)) < 0.1 * len(patches)


def test_classes_are_dealt_from_the_first(patches):
    assert {int(label) // 2 for label in patches.labels[:2]} == {0, 1}
    assert torch.equal(data.load("microscopy", limit=7).images, patches.images[:7])


def test_resized_and_refused():
    assert data.load("microscopy", limit=3, size=28).images.shape == (3, 3, 28, 28)
    with pytest.raises(InvalidValueError, match="size is 3"):
        data.load("microscopy", size=3)
