"""Images in folders, one folder a class."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from invertigo.data.image_set import ImageSet
from invertigo.data.pixels import decode, is_grey
from invertigo.data.source import Content, Request
from invertigo.types import MismatchError, MissingDataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"})


def load_image_folder(
    path: str | Path,
    *,
    size: int | None = None,
    limit: int | None = None,
    channels: int | None = None,
    name: str | None = None,
) -> ImageSet:
    """The images below `path`, labelled by the subfolder they lie in (`path/<class>/**/*.png`).

    A folder that holds images and no subfolders is one class. Files that are not images by their suffix are passed
    over. Classes are in alphabetical order; the examples take the classes in turn, so that a small `limit` meets many.

    Args:
        path: The folder.
        size: Crop to the central square and resize to this many pixels; needed when the files differ in size.
        limit: Only the first `limit` examples; the others are not decoded.
        channels: 1 or 3; None gives 1 if all files are grey, else 3.
        name: What to call the set; None takes the folder's name.

    Raises: MissingDataError, CorruptFileError, MismatchError for files of different sizes.
    """
    folder = Path(path).expanduser()
    request = Request(size=size, limit=limit)
    return ImageSet(name or folder.name, *read_image_folder(folder, request, channels))


def read_image_folder(folder: Path, request: Request, channels: int | None = None) -> Content:
    """Images, labels and classes of a folder."""
    files, classes = _list(folder)
    chosen = files[: request.limit]
    if channels is None:
        channels = 1 if all(is_grey(file) for file, _ in chosen) else 3
    images = [decode(file, channels=channels, size=request.size) for file, _ in chosen]
    return _stack(images, [file for file, _ in chosen]), torch.tensor([label for _, label in chosen]), classes


def _list(folder: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    if not folder.is_dir():
        raise MissingDataError(f"There is no image folder {folder}; pass the path of an existing one.")
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    homes = [home for home in subfolders if _images(home)] or [folder]
    piles = [[(file, label) for file in _images(home)] for label, home in enumerate(homes)]
    files = [item for turn in zip_longest(*piles) for item in turn if item is not None]
    if not files:
        raise MissingDataError(
            f"{folder} holds no images. Put them at {folder}/<class>/, with one of the suffixes "
            f"{', '.join(sorted(SUFFIXES))}."
        )
    return files, tuple(home.name for home in homes)


def _images(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def _stack(images: list[Tensor], files: list[Path]) -> Tensor:
    for image, file in zip(images, files):
        if image.shape != images[0].shape:
            raise MismatchError(
                f"{file} is {tuple(image.shape[1:])} pixels but {files[0]} is {tuple(images[0].shape[1:])}. "
                "A batch needs images of one size: pass size=, e.g. size=64."
            )
    return torch.stack(images)
