"""Arrays out of pickles that others published, without letting the pickle run anything.

A pickle can name any function to be called. This reader knows a handful of recorders that only keep what they are
handed, and refuses every other name; neither NumPy nor SciPy nor the standard library can be reached from a file.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from invertigo.types import CorruptFileError
from invertigo.types.untrusted import MEBIBYTE, check_file

LARGEST = 256 * MEBIBYTE
"""Bytes of a published pickle."""
LARGEST_DENSE = 2**25
"""Entries of a sparse matrix with its zeros written out."""
LARGEST_TUPLE = 1_000_000
"""Entries of a tuple with those inside it written out; hashing it takes as many steps."""


def read_inert(path: Path) -> Any:
    """What lies in the pickle: arrays, sparse matrices as dense arrays, dictionaries, lists and numbers.

    Raises: CorruptFileError for a damaged file, and for one that asks for anything else.
    """
    try:
        with check_file(path, largest=LARGEST).open("rb") as file:
            return _plain(InertReader(file, KNOWN).load())
    except CorruptFileError:
        raise
    # Opcodes of a damaged pickle fail in as many ways as there are opcodes.
    except Exception as error:
        raise CorruptFileError(
            f"{path} is not an intact file of the published set ({type(error).__name__}: {error}). Download it again."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, _Sparse):
        return value.dense()
    if isinstance(value, dict):
        return {key: list(near) for key, near in value.items()}
    raise ValueError(f"it holds a {type(value).__name__}")


class _Kind:
    """Stands in for NumPy's dtype: plain little-endian numbers only."""

    codes: ClassVar[dict[str, str]] = {"f4": "<f4", "f8": "<f8", "i4": "<i4", "i8": "<i8", "u1": "u1", "b1": "?"}

    def __init__(self, code: bytes | str, *_: Any) -> None:
        text = code.decode() if isinstance(code, bytes) else code
        self.code = self.codes[text.lstrip("<|=")]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in (b"<", b"|", b"=", "<", "|", "="):
            raise ValueError("numbers in a byte order other than little-endian")


class _Array:
    """Stands in for a NumPy array."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The array, in C order."""
        _, shape, kind, fortran, raw = self.state
        if not isinstance(kind, _Kind) or not isinstance(raw, bytes):
            raise ValueError("it holds an array of objects")
        return np.frombuffer(raw, kind.code).reshape(shape, order="F" if fortran else "C")


class _Sparse:
    """Stands in for SciPy's compressed rows."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[Any, Any] = {}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.state = {key.decode() if isinstance(key, bytes) else key: value for key, value in state.items()}

    def dense(self) -> np.ndarray:
        """Rows and columns, zeros written out."""
        data, columns, ends = (self.state[name].array() for name in ("data", "indices", "indptr"))
        rows, width = (int(side) for side in self.state["_shape"])
        if len(ends) != rows + 1 or (np.diff(ends) < 0).any() or ends[-1] != len(columns) or len(data) != len(columns):
            raise ValueError("a sparse matrix whose rows do not add up")
        if not 0 <= rows * width <= LARGEST_DENSE:
            raise ValueError(f"a sparse matrix of {rows} by {width} entries")
        made = np.zeros((rows, width), data.dtype)
        made[np.repeat(np.arange(rows), np.diff(ends)), columns] = data
        return made


class _Table(dict):
    """Stands in for a defaultdict; a dictionary without attributes of its own."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """A table has no state beside its entries."""


class ByteString:
    """How Python 3 writes bytes in protocol 2. A class with `__setstate__`, because a pickle may set the attributes of
    anything else that it is handed."""

    def __new__(cls, text: str, encoding: str) -> Any:
        """The bytes that `text` stands for."""
        if encoding != "latin1":
            raise pickle.UnpicklingError("bytes in another encoding than latin1")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        """Bytes have no state."""


class InertReader(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Reads a pickle in which every name outside `known` is refused; `known` holds recorders, which run nothing.

    A tuple of twice the same tuple, some sixty times over, is a small file that takes for ever to be hashed or shown.
    So every tuple is weighed as it is built, which the reader written in C has no place for.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: BinaryIO, known: Mapping[tuple[str, str], object]) -> None:
        super().__init__(file, encoding="bytes")
        self._recorders = known
        self._weights: dict[int, int] = {}
        self._weighed: list[tuple[Any, ...]] = []  # keeps them alive, so that no other object takes their place

    def find_class(self, module: str, name: str) -> Any:
        """The recorder that stands in for `module.name`. Raises: UnpicklingError for any other name."""
        try:
            return self._recorders[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks to run {module}.{name}, which was refused") from None

    def _weigh(self) -> None:
        made: tuple[Any, ...] = vars(self)["stack"][-1]
        self._weights[id(made)] = 1 + sum(self._weights.get(id(part), 1) for part in made)
        self._weighed.append(made)
        if self._weights[id(made)] > LARGEST_TUPLE:
            raise pickle.UnpicklingError("it repeats itself endlessly")


def _weighing(build: Callable[[Any], None]) -> Callable[[Any], None]:
    def built(reader: Any) -> None:
        build(reader)
        reader._weigh()

    return built


for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    InertReader.dispatch[_code[0]] = _weighing(InertReader.dispatch[_code[0]])


KNOWN: Mapping[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Kind,
    ("scipy.sparse.csr", "csr_matrix"): _Sparse,
    ("scipy.sparse._csr", "csr_matrix"): _Sparse,
    ("_codecs", "encode"): ByteString,
    ("collections", "defaultdict"): _Table,
    ("builtins", "list"): "list",
    ("__builtin__", "list"): "list",
}
