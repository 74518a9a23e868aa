"""Rows of an array in an npz archive, without the others: a compressed archive can announce more than memory holds."""

from __future__ import annotations

import struct
import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from invertigo.types.untrusted import LARGEST_IMAGE, check_unpacked

UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, SyntaxError, OverflowError, IndexError),
    *(NotImplementedError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error),
)
"""What zipfile and NumPy raise on damaged archives."""
_AT_ONCE = 2**24
"""Bytes."""


def rows_of(archive: zipfile.ZipFile, name: str) -> int:
    """How many rows the array called `name` announces. Raises: one of `UNREADABLE`."""
    with archive.open(f"{name}.npy") as file:
        return _header(file)[0][0]


def read_rows(archive: zipfile.ZipFile, name: str, path: Path, chosen: np.ndarray | None = None) -> np.ndarray:
    """The array called `name`, or its rows `chosen` in that order. Objects are refused, so nothing is unpickled.

    Raises: one of `UNREADABLE`.
    """
    with archive.open(f"{name}.npy") as file:
        shape, dtype = _header(file)
        width = prod(shape[1:])
        if width > LARGEST_IMAGE:
            raise ValueError(f"'{name}' announces rows of {width} entries")
        check_unpacked(path, (shape[0] if chosen is None else len(chosen)) * width * dtype.itemsize)
        if chosen is not None and len(chosen) and int(chosen.max()) >= shape[0]:
            raise ValueError(f"'{name}' has {shape[0]} rows, fewer than there are labels")
        return _rows(file, shape, dtype, chosen)


def _rows(file: Any, shape: tuple[int, ...], dtype: np.dtype, chosen: np.ndarray | None) -> np.ndarray:
    """Read in parts, and keep what is wanted of each."""
    row = prod(shape[1:]) * dtype.itemsize
    made = np.empty((shape[0] if chosen is None else len(chosen), *shape[1:]), dtype)
    wanted = np.arange(shape[0]) if chosen is None else chosen
    last = int(wanted.max()) + 1 if len(wanted) else 0
    step = max(1, _AT_ONCE // max(row, 1))
    for start in range(0, last, step):
        count = min(step, last - start)
        raw = file.read(count * row)
        if len(raw) < count * row:
            raise EOFError(f"an array ends after {start + len(raw) // max(row, 1)} of {shape[0]} rows")
        part = np.frombuffer(raw, dtype).reshape(count, *shape[1:])
        here = (wanted >= start) & (wanted < start + count)
        made[here] = part[wanted[here] - start]
    if last == shape[0] and file.read(1):  # reading to the end also verifies the checksum
        raise ValueError("an array goes on after its last row")
    return made


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = reader(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which would have to be unpickled; allow_pickle stays off")
    if (fortran and len(shape) > 1) or not shape or dtype.kind not in "uifb":
        raise ValueError(f"an array of shape {shape} and type {dtype}, not numbers in C order")
    return shape, dtype
