"""Objectives against autograd through a naive formula; weights and masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from invertigo.attacks.matching.objectives import L1, Cosine, Nothing, Objective, SquaredL2, layer_weights


def naive(objective: Objective, p: list[Tensor], o: list[Tensor], w: list[Tensor]) -> Tensor:
    values = []
    for r in range(p[0].shape[0]):
        pr, orr = [x[r] for x in p], [x[0] for x in o]
        if isinstance(objective, SquaredL2):
            values.append(objective.scale * sum((wl * (a - b) ** 2).sum() for wl, a, b in zip(w, pr, orr)))
        elif isinstance(objective, L1):
            values.append(objective.scale * sum((wl * (a - b).abs()).sum() for wl, a, b in zip(w, pr, orr)))
        else:
            dot = sum((wl * a * b).sum() for wl, a, b in zip(w, pr, orr))
            left = sum((wl * a * a).sum() for wl, a in zip(w, pr))
            right = sum((wl * b * b).sum() for wl, b in zip(w, orr))
            values.append(1 - dot / (left * right).sqrt())
    return torch.stack(values)


@pytest.mark.parametrize("objective", [SquaredL2(), SquaredL2(0.5), L1(), L1(3.0), Cosine()], ids=repr)
@given(restarts=st.integers(1, 3), weighted=st.booleans(), seed=st.integers(0, 1000))
def test_value_and_cotangent_agree_with_autograd(
    objective: Objective, restarts: int, weighted: bool, seed: int
) -> None:
    gen = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (5,), (2, 2, 2)]
    p = [torch.randn(restarts, *s, generator=gen, dtype=torch.float64, requires_grad=True) for s in shapes]
    o = [torch.randn(1, *s, generator=gen, dtype=torch.float64) for s in shapes]
    masks = [(torch.rand(s, generator=gen) > 0.3).double() * 2 for s in shapes]
    value, cotangent = objective.value_and_cotangent([x.detach() for x in p], o, masks if weighted else None)
    expected = naive(objective, p, o, masks if weighted else [torch.ones(()) for _ in shapes])
    torch.testing.assert_close(value, expected.detach())
    for ours, theirs in zip(cotangent, torch.autograd.grad(expected.sum(), p)):
        torch.testing.assert_close(ours, theirs)


def test_cosine_ignores_the_length_of_the_update() -> None:
    p, o = [torch.randn(1, 7)], [torch.randn(1, 7)]
    short = Cosine().value_and_cotangent(p, [0.01 * o[0]], None)[0]
    torch.testing.assert_close(short, Cosine().value_and_cotangent(p, o, None)[0])


def test_cosine_of_a_vanished_update_is_finite() -> None:
    value, cotangent = Cosine().value_and_cotangent([torch.zeros(1, 3)], [torch.ones(1, 3)], None)
    assert value.isfinite().all()
    assert cotangent[0].isfinite().all()


def test_nothing_carries_no_information() -> None:
    value, cotangent = Nothing().value_and_cotangent([torch.randn(2, 3)], [torch.randn(1, 3)], None)
    assert not value.any()
    assert not cotangent[0].any()


def test_layer_weights() -> None:
    parameters = {"a": torch.zeros(2), "b": torch.zeros(4), "c": torch.zeros(1)}
    assert layer_weights("equal", parameters) is None
    assert [w.item() for w in layer_weights("linear", parameters) or []] == [1.0, 1.5, 2.0]
    assert [w.item() for w in layer_weights("inverse_size", parameters) or []] == [0.5, 0.25, 1.0]


def test_hidden_entries_leave_the_objective() -> None:
    parameters = {"a": torch.zeros(3)}
    weights = layer_weights("equal", parameters, {"a": torch.tensor([1.0, 0.0, 1.0])})
    observed = [torch.tensor([[1.0, 2.0, 3.0]])]
    value, cotangent = SquaredL2().value_and_cotangent([torch.tensor([[1.0, 99.0, 3.0]])], observed, weights)
    assert value.item() == 0
    assert not cotangent[0].any()
