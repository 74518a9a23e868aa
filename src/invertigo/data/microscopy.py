"""Biomedical patches cut from two pictures that scikit-image bundles: a stained tissue section and a retina."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product, zip_longest

import numpy as np
import torch
from PIL import Image

from invertigo.data.pixels import from_bytes
from invertigo.data.source import Content, ImageSource, Request, register
from invertigo.types import InvalidValueError
from invertigo.types.extras import require

CLASSES = ("stroma", "stained epithelium", "retina", "retinal vessels")
SIDES = {"immunohistochemistry": 16, "retina": 32}
"""Side of a patch in pixels of the picture; the retina is three times as large."""
SMALLEST = 16
BROWN, VESSELS = 0.5, 0.04
"""Share of brown pixels from which a patch is stained; contrast of the green channel from which it shows vessels."""
AMBIGUOUS = 0.25
"""A patch whose measure lies within this share of the threshold belongs to no class."""
BACKGROUND = 0.12
"""Patches darker than this, or with a darker pixel, reach out of the retina's field of view."""


def _read(request: Request) -> Content:
    """Patches of both pictures in turn; the splits are the halves of a chessboard, so that no pixel is in both."""
    size = request.size or SMALLEST
    if size < 4:
        raise InvalidValueError(f"size is {size}; patches of fewer than 4 pixels show nothing.")
    piles = [list(_patches(name, request.split)) for name in SIDES]
    dealt = [item for pair in zip_longest(*piles) for item in pair if item is not None][: request.limit]
    pixels = np.stack([np.asarray(patch.resize((size, size), Image.Resampling.LANCZOS)) for patch, _ in dealt])
    return from_bytes(pixels), torch.tensor([label for _, label in dealt]), CLASSES


def _patches(name: str, split: str) -> Iterator[tuple[Image.Image, int]]:
    """Labelled patches of one picture, row by row."""
    whole = Image.fromarray(getattr(require("skimage.data", "vision"), name)())
    side, cell = SIDES[name], 4 * SIDES[name]
    for row, column in product(range(whole.height // side), range(whole.width // side)):
        if (row * side // cell + column * side // cell) % 2 != ("train", "public").index(split):
            continue
        patch = whole.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
        label = _label(name, np.asarray(patch) / 255)
        if label is not None:
            yield patch, label


def _label(name: str, pixels: np.ndarray) -> int | None:
    """The class of a patch (height, width, 3) in [0, 1] by what can be measured in it; None where that is unclear."""
    if name == "retina":
        if pixels.max(axis=2).min() < BACKGROUND:
            return None
        found = _decide(pixels[..., 1].std(), VESSELS)
    else:
        found = _decide(float(_is_brown(pixels).mean()), BROWN)
    return None if found is None else found + (2 if name == "retina" else 0)


def _is_brown(pixels: np.ndarray) -> np.ndarray:
    """Where the stain (diaminobenzidine) lies: clearly more red than blue."""
    return pixels[..., 0] - pixels[..., 2] > 0.12


def _decide(measure: float, threshold: float) -> int | None:
    if abs(measure - threshold) < AMBIGUOUS * threshold:
        return None
    return int(measure > threshold)


MICROSCOPY = register(
    ImageSource(
        name="microscopy",
        summary="Colour patches of stained tissue and of a retina, 16x16 or any size, in four measured classes",
        splits=("train", "public"),
        licence="As distributed with scikit-image: tissue (CMMI) without known restrictions, retina (M. Häggström) CC0",
        read=_read,
        bundled=True,
    )
)
