"""Label accuracy after matching, and of the counts alone."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertigo.evaluation import count_accuracy, label_accuracy
from invertigo.types import MismatchError


def test_labels_are_compared_in_the_order_of_the_truth():
    truth, matching = torch.tensor([3, 5, 7]), torch.tensor([1, 2, 0])
    assert label_accuracy(truth, torch.tensor([7, 3, 5]), matching) == 1
    assert label_accuracy(truth, torch.tensor([3, 5, 7]), matching) == 0
    assert label_accuracy(truth, torch.tensor([7, 3, 9]), matching) == pytest.approx(2 / 3)


def test_an_unmatched_truth_counts_as_wrong():
    assert label_accuracy(torch.tensor([1, 1]), torch.tensor([1]), torch.tensor([0, -1])) == 0.5


def test_scores_over_classes_are_read_by_their_largest():
    soft = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    assert label_accuracy(torch.tensor([0, 1]), soft, torch.tensor([1, 0])) == 1
    assert count_accuracy(torch.tensor([0, 1]), soft) == 1


def test_a_matching_of_another_batch_is_refused():
    with pytest.raises(MismatchError, match="3 true and 1 rebuilt"):
        label_accuracy(torch.tensor([1, 1, 1]), torch.tensor([1]), torch.tensor([0, 1, -1]))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([7, 3, 3, 5, 3, 7], 1),
        ([3, 3, 3, 3, 5, 7], 5 / 6),
        ([0, 1, 2, 3, 5, 7], 0.5),
        ([3, 5], 1 / 3),
        ([3] * 12, 0.25),
    ],
)
def test_counts_compare_multisets(found, expected):
    assert count_accuracy(torch.tensor([3, 3, 3, 5, 7, 7]), torch.tensor(found)) == pytest.approx(expected)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_counts_are_those_of_a_multiset_intersection(true, found):
    overlap = sum((Counter(true) & Counter(found)).values()) / max(len(true), len(found))
    assert count_accuracy(torch.tensor(true), torch.tensor(found)) == pytest.approx(overlap)
