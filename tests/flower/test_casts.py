"""A change of dtype costs nothing, or what was declared, or is refused."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("flwr")

from invertigo.flower.casts import cast
from invertigo.types import MismatchError

F32, F64, I64 = torch.float32, torch.float64, torch.int64


@pytest.mark.parametrize(
    ("sent", "to", "casts", "expected", "lost"),
    [
        (torch.tensor(3.0, dtype=F64), I64, "lossless", 3, None),
        (torch.tensor(1 / 3 + 1 / 3 + 1 / 3 - 1e-16, dtype=F64), I64, "lossless", 1, None),
        (torch.tensor(3.5, dtype=F64), I64, "lossless", 3, "its fraction cut off"),  # as load_state_dict does
        (torch.tensor([0.5, -0.25], dtype=F64), F32, "lossless", [0.5, -0.25], None),
        (torch.tensor([torch.nan, 1.0], dtype=F64), F32, "lossless", [torch.nan, 1.0], None),
        (torch.tensor([0.1], dtype=F64), F32, "float32", [0.1], "rounded"),
        (torch.tensor([0.1], dtype=F32), torch.float16, "any", [0.1], "rounded"),
        (torch.tensor([7], dtype=torch.int32), F32, "lossless", [7.0], None),
    ],
)
def test_what_is_cast(sent, to, casts, expected, lost):
    got, how = cast("a", sent, to, casts)
    assert got.dtype == to
    assert how == lost
    torch.testing.assert_close(got, torch.tensor(expected, dtype=to), equal_nan=True)
    reference = torch.zeros_like(sent, dtype=to)
    if lost:
        assert torch.equal(got, reference.copy_(sent))


@pytest.mark.parametrize(
    ("sent", "to", "casts"),
    [
        (torch.tensor([0.1], dtype=F64), F32, "lossless"),
        (torch.tensor([0.1], dtype=F32), torch.float16, "float32"),
        (torch.tensor([1e300, 1.0], dtype=F64), F32, "any"),
        (torch.tensor([1.5, 2.0], dtype=F64), I64, "any"),
        (torch.tensor(torch.nan, dtype=F64), I64, "any"),
        (torch.tensor(1e30, dtype=F64), I64, "any"),
        (torch.tensor(300.0, dtype=F64), torch.int8, "any"),
        (torch.tensor([1 + 1j]), F32, "any"),
        (torch.tensor([1.0]), torch.bool, "any"),
    ],
)
def test_what_is_refused(sent, to, casts):
    with pytest.raises(MismatchError, match=f"'a' is {sent.dtype}, not {to}"):
        cast("a", sent, to, casts)
