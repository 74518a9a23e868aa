"""What arrives is parsed or refused with the reason, and never unpickled."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, RecordDict

from invertigo.flower import read_arrays, write_arrays
from invertigo.flower.records import model_record
from invertigo.types import CorruptFileError, MismatchError

FLAG: list[int] = []


def set_flag() -> None:
    FLAG.append(1)


@dataclass
class Trap:
    def __reduce__(self):
        return (set_flag, ())


def array(data: bytes, shape=(2,), dtype="float32", stype="numpy.ndarray") -> ArrayRecord:
    return ArrayRecord({"weight": Array(dtype, shape, stype, data)})


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


def test_tensors_come_back_bit_for_bit():
    sent = {"w": torch.randn(3, 2), "n": torch.tensor(7), "d": torch.rand(2, dtype=torch.float64).neg()}
    back = read_arrays(write_arrays(sent))
    assert list(back) == list(sent)
    for name, tensor in sent.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_a_pickle_is_named_and_not_run():
    with pytest.raises(CorruptFileError, match=r"'weight'.*is a pickle, which can run code"):
        read_arrays(array(pickle.dumps(Trap())))
    with pytest.raises(CorruptFileError, match="'weight' is damaged or holds no plain numbers"):
        read_arrays(array(npy(np.array([Trap(), Trap()], dtype=object)), dtype="object"))
    assert FLAG == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (array(b"PK\x03\x04rest"), "zip archive"),
        (array(b"hello"), "no NumPy array"),
        (array(npy(np.zeros(2, np.float32)), stype="torch"), "declared as 'torch'"),
        (array(npy(np.zeros(2, np.float32))[:-3]), "damaged"),
        (array(npy(np.array(["a", "b"]))), "no plain numbers"),
        (array(npy(np.zeros(3, np.float32))), r"shape is \(2,\), but holds \(3,\)"),
    ],
)
def test_anything_else_is_refused_with_the_reason(record, reason):
    with pytest.raises(CorruptFileError, match=reason):
        read_arrays(record)


def test_the_model_is_the_only_record_or_the_named_one():
    one, two = write_arrays({"a": torch.zeros(1)}), write_arrays({"a": torch.ones(1)})
    assert model_record(RecordDict({"arrays": one}))[0] == "arrays"
    assert model_record(RecordDict({"x": one, "y": two}), "y") == ("y", two)
    with pytest.raises(MismatchError, match=r"2 array records \(x, y\)"):
        model_record(RecordDict({"x": one, "y": two}))
    with pytest.raises(MismatchError, match=r"no array record 'z' \(x\)"):
        model_record(RecordDict({"x": one}), "z")
    with pytest.raises(MismatchError, match="none at all"):
        model_record(RecordDict())
