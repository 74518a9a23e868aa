"""From image files and arrays to float tensors in [0, 1]."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from invertigo.types import CorruptFileError, InvalidValueError
from invertigo.types.untrusted import LARGEST_IMAGE, check_file

UNREADABLE = (
    *(UnidentifiedImageError, OSError, SyntaxError, EOFError, Image.DecompressionBombError),
    *(ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, struct.error, zlib.error),
)
"""What Pillow raises on damaged files, by format."""
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})


def decode(
    path: Path, *, channels: int | None = None, size: int | None = None
) -> Float[Tensor, "channels height width"]:
    """One image file as pixels in [0, 1].

    Orientation tags are applied, transparency is laid on white, palettes are resolved, 16-bit grey keeps its depth.
    `channels` is 1 or 3 (None: 1 for a grey file, else 3).
    Raises: CorruptFileError naming the file; InvalidValueError for floating-point pixels.
    """
    try:
        with Image.open(check_file(path)) as opened:
            _check_size(opened.size)
            grey = opened.mode in GREY_MODES
            image = ImageOps.exif_transpose(opened)
            return _to_tensor(image, channels or (1 if grey else 3), size)
    except (CorruptFileError, InvalidValueError):
        raise
    except UNREADABLE as error:
        raise CorruptFileError(
            f"{path} cannot be read as an image ({error}). Replace it with an intact copy, or remove it from the set."
        ) from error


def is_grey(path: Path) -> bool:
    """Whether the file's header announces a grey image; the pixels are not decoded."""
    try:
        with Image.open(check_file(path)) as opened:
            return opened.mode in GREY_MODES
    except (CorruptFileError, *UNREADABLE):
        return False


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > LARGEST_IMAGE:
        raise OSError(f"it has {size[0]}x{size[1]} pixels; at most {LARGEST_IMAGE // 10**6} million are decoded")


def _to_tensor(image: Image.Image, channels: int, size: int | None) -> Tensor:
    if image.mode == "F":
        raise InvalidValueError("The pixels are floating-point numbers of unknown range; save them with 8 or 16 bits.")
    if image.mode.startswith("I"):
        deep = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535).clamp(0, 1)
        pixels = deep.expand(channels, *deep.shape)
        return pixels if size is None else resize(pixels[None], size)[0]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return from_bytes(np.asarray(image)[None])[0]


def from_bytes(pixels: np.ndarray) -> Float[Tensor, "examples channels height width"]:
    """Bytes (examples, height, width[, channels]) as pixels in [0, 1]."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise InvalidValueError(
            f"Expected bytes of shape (examples, height, width[, channels]), not {pixels.dtype} {pixels.shape}."
        )
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    return torch.from_numpy(np.moveaxis(pixels, -1, 1).astype(np.float32) / 255)


def resize(images: Float[Tensor, "examples channels height width"], size: int | None) -> Tensor:
    """The central square of each image, LANCZOS-resized to `size` by `size` pixels; None leaves the images alone."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[..., top : top + side, left : left + side]
    planes = [_lanczos(plane, size) for plane in square.flatten(0, 1).float().numpy()]
    return torch.stack(planes).clamp(0, 1).unflatten(0, images.shape[:2])


def _lanczos(plane: np.ndarray, size: int) -> Tensor:
    image = Image.fromarray(np.ascontiguousarray(plane))
    return torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.LANCZOS)))
