"""From Flower's array records to tensors and back. What arrives is untrusted: it is parsed, never unpickled."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from invertigo.types import CorruptFileError, MismatchError

EMPTY = "_empty"
"""What stands in a list without arrays."""
NPY = b"\x93NUMPY"
FOREIGN = {b"\x80": "a pickle, which can run code when it is read", b"PK": "a zip archive (a torch or npz file)"}


def model_record(content: RecordDict, name: str | None = None) -> tuple[str, ArrayRecord]:
    """The array record that holds the model, with its name: the named one, or the only one.

    Raises: MismatchError when there is none, or several and no name says which.
    """
    found = {key: record for key, record in content.array_records.items() if record or key == name}
    if name is not None and name in found:
        return name, found[name]
    if name is None and len(found) == 1:
        return next(iter(found.items()))
    what = f"no array record '{name}'" if name else f"{len(found)} array records"
    raise MismatchError(
        f"The message holds {what} ({', '.join(sorted(found)) or 'none at all'}), so it is not clear what the client "
        "would train on. Name the record of the model in arrays=..., and use this mod only on functions that get one."
    )


def read_arrays(record: ArrayRecord) -> dict[str, Tensor]:
    """Each array of the record as a tensor of its own, by name.

    Raises: CorruptFileError for anything that is not a plain NumPy array of numbers, such as a pickle.
    """
    return {name: _tensor(name, array) for name, array in record.items() if name != EMPTY}


def write_arrays(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """The tensors as Flower sends them."""
    return ArrayRecord({name: Array(tensor.detach().cpu().contiguous().numpy()) for name, tensor in tensors.items()})


def _tensor(name: str, array: Array) -> Tensor:
    start = bytes(array.data[: len(NPY)])
    if array.stype != "numpy.ndarray" or start != NPY:
        kind = next((what for magic, what in FOREIGN.items() if start.startswith(magic)), "no NumPy array")
        raise CorruptFileError(
            f"The array '{name}' (declared as '{array.stype}') is {kind}. Only plain NumPy arrays of numbers are read; "
            "send them with ArrayRecord(model.state_dict())."
        )
    try:
        values = array.numpy()  # numpy.load with allow_pickle=False
        tensor = torch.from_numpy(values)
    except (ValueError, TypeError, EOFError, OverflowError, MemoryError) as error:
        raise CorruptFileError(f"The array '{name}' is damaged or holds no plain numbers: {error}.") from error
    legacy = not array.dtype and not array.shape  # Flower's older clients and servers do not say
    if not legacy and tuple(tensor.shape) != tuple(array.shape):
        raise CorruptFileError(
            f"The array '{name}' says that its shape is {tuple(array.shape)}, but holds {tuple(tensor.shape)}."
        )
    return tensor
