"""Aggregation is an exact mean."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertigo.federation import aggregate
from invertigo.types import InvalidValueError, MismatchError, Update


def update(value, *, buffers=None, kind="gradient"):
    return Update({"w": torch.full((2,), float(value), dtype=torch.float64)}, kind, buffers)


def test_four_equal_updates_aggregate_to_themselves():
    assert torch.equal(aggregate([update(10)] * 4).tensors["w"], torch.full((2,), 10.0, dtype=torch.float64))


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 50)), min_size=1, max_size=6))
def test_weighted_mean(clients):
    mean = aggregate([update(v) for v, _ in clients], [n for _, n in clients]).tensors["w"][0].item()
    expected = sum(v * n for v, n in clients) / sum(n for _, n in clients)
    assert mean == pytest.approx(expected, abs=1e-9)


def test_buffers_are_averaged_too():
    counts = [
        {"m": torch.tensor([0.0]), "num_batches_tracked": torch.tensor(1)},
        {"m": torch.tensor([2.0]), "num_batches_tracked": torch.tensor(3)},
    ]
    mean = aggregate([update(1, buffers=b) for b in counts]).buffers
    assert mean["m"].item() == 1.0
    assert mean["num_batches_tracked"].item() == 2
    assert mean["num_batches_tracked"].dtype == torch.int64
    assert aggregate([update(1), update(2)]).buffers is None


@pytest.mark.parametrize(
    ("updates", "weights", "error"),
    [
        ([], None, InvalidValueError),
        ([update(1)], [0.0], InvalidValueError),
        ([update(1), update(2)], [1.0, -1.0], InvalidValueError),
        ([update(1), update(2)], [1.0], MismatchError),
        ([update(1), update(2, kind="difference")], None, MismatchError),
        ([update(1), update(2, buffers={"m": torch.zeros(1)})], None, MismatchError),
        ([update(1), Update({"v": torch.zeros(2)}, "gradient")], None, MismatchError),
    ],
)
def test_what_cannot_be_averaged_is_refused(updates, weights, error):
    with pytest.raises(error):
        aggregate(updates, weights)
