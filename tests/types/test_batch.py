from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertigo.types import Batch, InvalidValueError, MismatchError


def pair(n: int = 3) -> Batch:
    return Batch({"images": torch.rand(n, 1, 2, 2), "labels": torch.arange(n)})


def test_holds_named_tensors_and_their_common_length():
    batch = pair(3)
    assert len(batch) == 3
    assert batch["labels"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "fields", [{}, {"images": torch.empty(0, 1, 2, 2)}, {"labels": torch.tensor(3)}], ids=["none", "zero", "scalar"]
)
def test_an_empty_batch_is_refused(fields):
    with pytest.raises(InvalidValueError, match=r"empty.*at least one example"):
        Batch(fields)


def test_fields_of_different_length_are_refused_with_both_lengths():
    with pytest.raises(MismatchError, match=r"'images': 2.*'labels': 3"):
        Batch({"images": torch.rand(2, 1, 2, 2), "labels": torch.arange(3)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_by_field_name(value):
    images = torch.zeros(1, 1, 2, 2)
    images[0, 0, 1, 1] = value
    with pytest.raises(InvalidValueError, match=r"'images'.*NaN or Inf"):
        Batch({"images": images})


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_select_keeps_the_fields_aligned(indices):
    batch = Batch({"images": torch.arange(5.0)[:, None], "labels": torch.arange(5)})
    chosen = batch.select(indices)
    assert chosen["labels"].tolist() == indices
    assert chosen["images"][:, 0].tolist() == [float(i) for i in indices]


def test_select_of_nothing_is_refused():
    with pytest.raises(InvalidValueError, match="empty"):
        pair().select([])


def test_conversion_reaches_floating_fields_only():
    batch = pair().to(dtype=torch.float64)
    assert batch["images"].dtype == torch.float64
    assert batch["labels"].dtype == torch.int64
