"""MNIST and its relatives in the IDX format, gzipped or plain."""

from __future__ import annotations

import gzip
import struct
import zlib
from functools import partial
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import torch

from invertigo.data.locate import find
from invertigo.data.pixels import from_bytes, resize
from invertigo.data.source import Content, ImageSource, Request, register
from invertigo.types import CorruptFileError, MismatchError, Paper
from invertigo.types.untrusted import LARGEST_IMAGE, check_file, check_unpacked

MNIST = Paper(
    key="lecun1998gradient",
    title="Gradient-Based Learning Applied to Document Recognition",
    authors="LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick",
    year=1998,
    venue="Proceedings of the IEEE",
)
FASHION = Paper(
    key="xiao2017fashion",
    title="Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
    authors="Xiao, Han and Rasul, Kashif and Vollgraf, Roland",
    year=2017,
    venue="arXiv preprint",
    arxiv="1708.07747",
)
GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
PREFIX = {"train": "train", "test": "t10k"}
UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, ndim: int, limit: int | None = None) -> np.ndarray:
    """The first `limit` items of an IDX file of unsigned bytes with `ndim` dimensions.

    The file starts with two zero bytes, a type byte, the number of dimensions and each dimension as a big-endian
    32-bit integer; the items follow in C order. Only what is asked for is read.
    Raises: CorruptFileError.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(check_file(path), "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != UNSIGNED_BYTE or magic[3] != ndim:
                raise ValueError(f"its header is {magic.hex(' ')}, not 00 00 08 {ndim:02x}")
            shape = struct.unpack(f">{ndim}I", file.read(4 * ndim))
            items = shape[0] if limit is None else min(limit, shape[0])
            size = items * prod(shape[1:])
            check_unpacked(path, size)
            if prod(shape[1:]) > LARGEST_IMAGE:
                raise ValueError(f"its header announces items of {shape[1:]} bytes")
            raw = file.read(size)
            if len(raw) < size:
                raise ValueError(f"it ends after {len(raw)} of {size} bytes")
            if items == shape[0] and file.read(1):  # reading to the end also verifies gzip's checksum
                raise ValueError(f"it goes on after the {size} bytes it announces")
    except (ValueError, OSError, EOFError, struct.error, zlib.error) as error:
        raise CorruptFileError(f"{path} is not an intact IDX file: {error}. Replace it with a fresh copy.") from error
    return np.frombuffer(raw, np.uint8).reshape(items, *shape[1:])


def _read(
    request: Request, *, name: str, folders: tuple[str, ...], classes: tuple[str, ...], beside: tuple[Path, ...] = ()
) -> Content:
    prefix = PREFIX[request.split]
    shown = [f"{prefix}-images-idx3-ubyte and {prefix}-labels-idx1-ubyte (gzipped or not) into {folders[0]}/"]
    paths = []
    for kind in ("images-idx3", "labels-idx1"):
        stems = [f"{prefix}-{spelt}-ubyte" for spelt in (kind, kind.replace("-idx", ".idx"))]
        files = [stem + suffix for stem, suffix in product(stems, (".gz", ""))]
        layouts = [f"{folder}/{file}" for folder, file in product(folders, files)]
        installed = [place / file for place, file in product(beside, files)]
        paths.append(find(name, layouts, request.root, beside=installed, layouts=shown))
    images, labels = read_idx(paths[0], ndim=3, limit=request.limit), read_idx(paths[1], ndim=1, limit=request.limit)
    if len(images) != len(labels):
        raise MismatchError(f"{paths[0]} has {len(images)} images but {paths[1]} has {len(labels)} labels.")
    return resize(from_bytes(images), request.size), torch.from_numpy(labels.astype(np.int64)), classes


register(
    ImageSource(
        name="mnist",
        summary="70,000 handwritten digits, grey, 28x28",
        splits=("train", "test"),
        licence="CC BY-SA 3.0",
        read=partial(_read, name="mnist", folders=("mnist", "MNIST/raw"), classes=tuple("0123456789")),
        paper=MNIST,
    )
)
register(
    ImageSource(
        name="fashion_mnist",
        summary="70,000 garments of 10 kinds, grey, 28x28",
        splits=("train", "test"),
        licence="MIT",
        read=partial(
            _read,
            name="fashion_mnist",
            folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
            classes=GARMENTS,
            # Where Debian's package dataset-fashion-mnist installs the files.
            beside=(Path("/usr/share/datasets/fashion-mnist"),),
        ),
        paper=FASHION,
    )
)
