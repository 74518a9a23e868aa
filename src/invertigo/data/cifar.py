"""CIFAR-10, as a folder of images or as the Python batches in which it is published."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invertigo.data.folder import read_image_folder
from invertigo.data.inert_pickle import LARGEST, ByteString, InertReader
from invertigo.data.locate import find
from invertigo.data.pixels import from_bytes, resize
from invertigo.data.source import Content, ImageSource, Request, register
from invertigo.types import CorruptFileError, Paper
from invertigo.types.untrusted import check_file

CIFAR = Paper(
    key="krizhevsky2009learning",
    title="Learning Multiple Layers of Features from Tiny Images",
    authors="Krizhevsky, Alex",
    year=2009,
    venue="Technical report, University of Toronto",
)
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the order of the published labels, which is also alphabetical."""
PIXELS = 3 * 32 * 32


def _read(request: Request) -> Content:
    batches = ("cifar10/cifar-10-batches-py", "cifar-10-batches-py")
    layouts = (f"the images at cifar10/{request.split}/<class>/*.png (or .jpg)", "the unpacked cifar-10-batches-py/")
    found = find("cifar10", (f"cifar10/{request.split}", *batches), request.root, layouts=layouts)
    if found.name == request.split:
        return read_image_folder(found, request, channels=3)
    return _read_batches(found, request)


def _read_batches(folder: Path, request: Request) -> Content:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for file in BATCHES[request.split]:
        pixels, targets = read_batch(folder / file)
        images.append(pixels)
        labels += targets
        if request.limit is not None and len(labels) >= request.limit:
            break
    pixels = np.concatenate(images)[: request.limit].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return resize(from_bytes(pixels), request.size), torch.tensor(labels[: request.limit]), CLASSES


def read_batch(path: Path) -> tuple[np.ndarray, list[int]]:
    """Bytes (examples, 3072) and labels of one file of `cifar-10-batches-py`.

    The format is a pickle, which can name any function to be called. This reader knows three inert recorders and
    nothing else, so the file cannot reach NumPy, the standard library or anything it brings along.
    Raises: CorruptFileError.
    """
    try:
        with check_file(path, largest=LARGEST).open("rb") as file:
            content = InertReader(file, KNOWN).load()
        pixels, labels = content[b"data"].bytes(), [int(label) for label in content[b"labels"]]
        pixels = np.frombuffer(pixels, np.uint8).reshape(len(labels), PIXELS)
    except CorruptFileError:
        raise
    # Opcodes of a damaged pickle fail in as many ways as there are opcodes.
    except Exception as error:
        raise CorruptFileError(
            f"{path} is not an intact batch of CIFAR-10's Python version ({type(error).__name__}: {error}). "
            "Unpack cifar-10-python.tar.gz again, from https://www.cs.toronto.edu/~kriz/cifar.html."
        ) from error
    return pixels, labels


class _ByteArray:
    """Stands in for a NumPy array in a batch file; keeps its bytes."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def bytes(self) -> bytes:
        """The array's bytes in C order."""
        _, shape, kind, fortran, raw = self.state
        if not isinstance(kind, _ByteType) or fortran or len(raw) != shape[0] * PIXELS:
            raise ValueError(f"not a C-ordered byte array with rows of {PIXELS}")
        return raw


class _ByteType:
    """Stands in for NumPy's dtype; only bytes are accepted."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        if code not in ("u1", "|u1", b"u1", b"|u1"):
            raise pickle.UnpicklingError("pixels that are no bytes")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment do not matter for single bytes."""


KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _ByteArray,
    ("numpy._core.multiarray", "_reconstruct"): _ByteArray,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _ByteType,
    ("_codecs", "encode"): ByteString,
}


register(
    ImageSource(
        name="cifar10",
        summary="60,000 colour photographs of 10 kinds of things, 32x32",
        splits=("train", "test"),
        licence="No licence stated; free for research with citation",
        read=_read,
        paper=CIFAR,
    )
)
