from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from invertigo.types import InvalidValueError, LocalTraining


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 3))
def test_steps_are_those_of_an_unshuffled_data_loader(examples, batch_size, epochs):
    local = LocalTraining(sends="difference", batch_size=batch_size, epochs=epochs)
    loader = DataLoader(torch.arange(examples), batch_size=batch_size)  # type: ignore[arg-type]
    expected = [step.tolist() for _ in range(epochs) for step in loader]
    assert [list(range(examples))[step] for step in local.steps(examples)] == expected


def test_without_a_batch_size_a_step_reads_the_whole_batch():
    assert LocalTraining().steps(7) == [slice(0, 7)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mode": "training"}, "mode is 'training'"),
        ({"sends": "weights"}, "sends is 'weights'"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0; it must be positive"),
        ({"learning_rate": -1.0}, "must be positive"),
        ({"momentum": 1.0}, r"momentum is 1\.0; it must lie in \[0, 1\)"),
        ({"momentum": -0.1}, r"must lie in \[0, 1\)"),
        ({"sends": "difference", "epochs": 0}, "at least one epoch"),
        ({"sends": "difference", "batch_size": 0}, "batch_size=0"),
        ({"epochs": 2}, "sends='difference'"),
        ({"batch_size": 4}, "sends='difference'"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_a_recipe_that_means_nothing_is_refused(wrong, said):
    with pytest.raises(InvalidValueError, match=said):
        LocalTraining(**wrong)
