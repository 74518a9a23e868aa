"""Array records, read against the client's own model and written again."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import ArrayRecord
from torch import nn

from invertigo.flower.casts import Casts
from invertigo.flower.records import read_arrays, write_arrays
from invertigo.flower.settled import Settled, settled


def arrival(
    record: ArrayRecord, model: nn.Module, *, casts: Casts | None = "float32", order: Sequence[str] | None = None
) -> Settled:
    """Read a record against the client's model; see `settled`. Raises: also CorruptFileError for no plain array."""
    return settled(read_arrays(record), model, casts=casts, order=order)


def as_record(read: Settled) -> ArrayRecord:
    """What was sent, under its own names and in its order, in the model's dtypes."""
    return write_arrays({name: read.tensors[own] for name, own in read.names.items()})
