"""Dual pruning sends exactly the middle of each layer, and an adversary who looks at the zeros loses little."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertigo.defenses import DualPruning
from invertigo.federation import train_locally
from invertigo.types import InvalidValueError, LocalTraining


def middle_by_sorting(tensor, largest, smallest):
    """Sort the entries by magnitude, then by place, and keep those between the two ends."""
    values = tensor.flatten().tolist()
    order = sorted(range(len(values)), key=lambda i: (abs(values[i]), i))
    low = int(smallest * len(values) + 1e-9)
    high = max(int(largest * len(values) + 1e-9), 1 if largest > 0 else 0)
    kept = order[low : len(values) - high]
    return torch.tensor([v if i in kept else 0.0 for i, v in enumerate(values)], dtype=tensor.dtype).view(tensor.shape)


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.05, 0.3]),
    st.sampled_from([0.1, 0.5, 0.65]),
)
def test_it_keeps_the_middle_whatever_the_ties(values, largest, smallest):
    tensor = torch.tensor(values, dtype=torch.float64)
    sent = tensor * DualPruning(largest=largest, smallest=smallest).kept(tensor)
    assert torch.equal(sent, middle_by_sorting(tensor, largest, smallest))


def test_every_layer_of_a_release_is_its_own_middle(released):
    raw = released(None)[2].observation.update.tensors
    _, _, seen = released(DualPruning())
    sent = seen.observation.update.tensors
    for name, tensor in raw.items():
        assert torch.equal(sent[name], middle_by_sorting(tensor, 0.05, 0.75)), name
    share = sum(int(t.count_nonzero()) for t in sent.values()) / sum(t.numel() for t in sent.values())
    assert seen.traces[0].facts["kept"] == pytest.approx(share)
    assert seen.traces[0].visible == pytest.approx(share)


def test_a_difference_after_local_steps_is_pruned_once(released):
    local = LocalTraining(sends="difference", epochs=3, learning_rate=0.1)
    raw = released(None, local=local)[2].observation.update.tensors
    sent = released(DualPruning(), local=local)[2].observation.update.tensors
    assert all(torch.equal(sent[name], middle_by_sorting(raw[name], 0.05, 0.75)) for name in raw)


def test_error_feedback_carries_what_was_left_out_into_the_next_round(released):
    raw = released(None)[2].observation.update.tensors
    _, _, seen = released(DualPruning(error_feedback=True), releases=5)
    for name, tensor in raw.items():
        left_over = torch.zeros_like(tensor)
        for release in seen.observation.releases:
            whole = tensor + left_over
            sent = middle_by_sorting(whole, 0.05, 0.75)
            left_over = whole - sent
            assert torch.allclose(release.tensors[name], sent, atol=1e-15), name


def test_an_adversary_adds_up_rounds_with_error_feedback(released):
    defense = DualPruning(error_feedback=True)
    _, _, seen = released(defense, releases=4)
    view = defense.adversary_view(seen.observation)
    assert view.update is not None
    for name, tensor in view.update.tensors.items():
        assert torch.allclose(tensor, sum(r.tensors[name] for r in seen.observation.releases) / 4)


def test_error_feedback_refuses_to_mix_two_clients(released):
    defense = DualPruning(error_feedback=True)
    task, batch, _ = released(defense)
    one, other = (batch.select([i]) for i in (0, 1))
    secret = torch.Generator().manual_seed(0)
    train_locally(task, one, LocalTraining(), defense=defense, secret=secret, number=1)
    with pytest.raises(InvalidValueError, match="client"):
        train_locally(task, other, LocalTraining(), defense=defense, secret=secret, number=1)
    train_locally(task, other, LocalTraining(), defense=replace(defense), secret=secret, number=1)


def test_knowing_it_pays(attacked):
    naive, informed = attacked(DualPruning())
    assert informed > naive + 2


@pytest.mark.parametrize("settings", [{"largest": 1.2}, {"smallest": -0.1}, {"largest": 0.5, "smallest": 0.5}])
def test_shares_that_are_none_are_refused(settings):
    with pytest.raises(InvalidValueError, match="shares"):
        DualPruning(**settings)


def test_pruning_nothing_is_refused():
    with pytest.raises(InvalidValueError, match="true update"):
        DualPruning(largest=0.0, smallest=0.0)
