from __future__ import annotations

import pytest
import torch

from invertigo.types import InvalidValueError, MismatchError, Update, check_fits

MODEL = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}


def test_norm_runs_over_all_tensors():
    update = Update({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}, "gradient")
    assert update.norm == pytest.approx(5.0)


def test_nan_and_infinity_are_counted_and_named():
    damaged = torch.tensor([float("nan"), 1.0, float("inf")])
    with pytest.raises(InvalidValueError, match=r"'bias' holds 2 NaN or Inf of 3 values"):
        Update({"bias": damaged}, "gradient")


def test_what_fits_passes():
    check_fits({"bias": torch.ones(2), "weight": torch.ones(2, 3)}, MODEL)


def test_a_missing_tensor_is_named():
    with pytest.raises(MismatchError, match=r"lacks 'bias'.*same architecture"):
        check_fits({"weight": torch.ones(2, 3)}, MODEL)


def test_an_extra_tensor_is_named():
    with pytest.raises(MismatchError, match="has 'scale', which the model does not know"):
        check_fits({**MODEL, "scale": torch.ones(1)}, MODEL)


def test_a_wrong_shape_is_shown_beside_the_models():
    with pytest.raises(MismatchError, match=r"'weight' is \(3, 2\) but the model's is \(2, 3\)"):
        check_fits({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, MODEL)


def test_a_long_list_of_problems_is_cut():
    with pytest.raises(MismatchError, match="and 7 more") as caught:
        check_fits({}, {f"layer{i}": torch.zeros(1) for i in range(10)})
    assert "layer9" not in str(caught.value)
