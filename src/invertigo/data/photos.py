"""Natural colour images cut from the photographs that scikit-image and scikit-learn bundle."""

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

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, right and bottom exclusive."""

MAIN_SUBJECT: dict[str, Box] = {
    "astronaut": (138, 0, 318, 180),
    "chelsea": (40, 0, 340, 300),
    "coffee": (60, 0, 460, 400),
    "rocket": (106, 0, 533, 427),
    "china": (50, 0, 477, 427),
    "flower": (96, 0, 523, 427),
}
"""The photographs, and the square of each that shows what it is of."""

CELL = 128
SCALES = (128, 64, 32)
DEFAULT_SIZE = 32
LARGEST = 300
PLAIN = 0.04
_LICENCE = (
    "astronaut (NASA) and rocket (SpaceX): public domain; chelsea (S. van der Walt) and coffee (R. Michetti): CC0; "
    "china (danielbuechele) and flower (vultilion): CC BY 2.0"
)


def crop_boxes(width: int, height: int, size: int) -> dict[str, list[Box]]:
    """Square crops of a photograph, by split; no two of them share a pixel.

    A grid of square cells is dealt out like a chessboard to `train` and `public`. Each cell in turn is kept whole, cut
    in four, or cut in sixteen, so that a split holds several scales; no crop is smaller than `size`.
    """
    cell = max(CELL, size)
    sides = [side for side in SCALES if side >= size] or [size]
    boxes: dict[str, list[Box]] = {"train": [], "public": []}
    turns = {"train": 0, "public": 0}
    for row, column in product(range(height // cell), range(width // cell)):
        split = ("train", "public")[(row + column) % 2]
        side = sides[turns[split] % len(sides)]
        turns[split] += 1
        boxes[split] += list(_tiles(column * cell, row * cell, cell, side))
    return {split: sorted(found, key=lambda box: box[0] - box[2]) for split, found in boxes.items()}


def _tiles(left: int, top: int, cell: int, side: int) -> Iterator[Box]:
    for row, column in product(range(cell // side), repeat=2):
        x, y = left + column * side, top + row * side
        yield x, y, x + side, y + side


def photographs() -> dict[str, Image.Image]:
    """The six whole photographs, RGB. Raises: MissingExtraError."""
    skimage, sklearn = require("skimage.data", "vision"), require("sklearn.datasets", "vision")
    arrays = {name: getattr(skimage, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    arrays |= {name: sklearn.load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {name: Image.fromarray(arrays[name]) for name in MAIN_SUBJECT}


def _read_crops(request: Request) -> Content:
    """Crops of all photographs in turn, large ones first; plain ones (sky, blurred background) are left out."""
    size = _checked(request.size)
    piles = []
    for label, photograph in enumerate(photographs().values()):
        boxes = crop_boxes(*photograph.size, size)[request.split]
        crops = (_crop(photograph, box, size) for box in boxes)
        piles.append([(crop, label) for crop in crops if crop.mean(axis=2).std() / 255 >= PLAIN])
    dealt = [item for turn in zip_longest(*piles) for item in turn if item is not None][: request.limit]
    images = from_bytes(np.stack([crop for crop, _ in dealt]))
    return images, torch.tensor([label for _, label in dealt]), tuple(MAIN_SUBJECT)


def _read_six(request: Request) -> Content:
    """The main subject of each photograph."""
    size = _checked(request.size)
    found = list(photographs().items())[: request.limit]
    pixels = np.stack([_crop(photograph, MAIN_SUBJECT[name], size) for name, photograph in found])
    return from_bytes(pixels), torch.arange(len(found)), tuple(MAIN_SUBJECT)


def _crop(photograph: Image.Image, box: Box, size: int) -> np.ndarray:
    # Cropping first keeps the filter's support inside the crop, so that nothing of a neighbour seeps in.
    return np.asarray(photograph.crop(box).resize((size, size), Image.Resampling.LANCZOS))


def _checked(size: int | None) -> int:
    size = size or DEFAULT_SIZE
    if size > LARGEST:
        raise InvalidValueError(
            f"size is {size}, but the smallest photograph is {LARGEST} pixels high; ask for at most {LARGEST}."
        )
    return size


PHOTOS = register(
    ImageSource(
        name="photos",
        summary="Hundreds of natural colour crops of six photographs, 32x32 or any size up to 300",
        splits=("train", "public"),
        licence=_LICENCE,
        read=_read_crops,
        bundled=True,
    )
)
SIX_PHOTOS = register(
    ImageSource(
        name="six_photos",
        summary="Six colour photographs (a face, a cat, a cup, a rocket, a pagoda, a flower), 32x32 or up to 300",
        splits=("train",),
        licence=_LICENCE,
        read=_read_six,
        bundled=True,
    )
)
