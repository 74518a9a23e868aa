"""OUTPOST prunes and adds noise where it says, in every first step, and never the same noise twice."""

from __future__ import annotations

import math

import pytest
import torch

from invertigo.defenses import Outpost
from invertigo.types import InvalidValueError, LocalTraining


def parts_by_sorting(tensor, prune, noisy):
    """(pruned, noisy) index sets: the smallest and the most informative entries."""
    values = tensor.flatten().abs().tolist()
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    return set(order[: int(prune * len(values) + 1e-9)]), set(order[len(values) - math.ceil(noisy * len(values)) :])


def test_noise_and_zeros_are_where_they_should_be(released):
    raw = released(None)[2].observation.update.tensors
    _, _, seen = released(Outpost())
    sent = seen.observation.update.tensors
    for name, tensor in raw.items():
        pruned, noisy = parts_by_sorting(tensor, 0.8, 0.4)
        changed = (sent[name] - tensor).flatten()
        for i in range(tensor.numel()):
            if i in pruned - noisy:
                assert sent[name].flatten()[i] == 0
            elif i in noisy - pruned:
                assert changed[i] != 0
            elif i not in noisy | pruned:
                assert changed[i] == 0


def test_noise_is_as_strong_as_the_spread_of_the_weights(released):
    raw = released(None)[2].observation.update.tensors
    task, _, _ = released(Outpost())
    name = "3.weight"
    variance = task.model.get_parameter(name).var(correction=0).item()
    sent = [released(Outpost(prune=0.0, noisy=1.0), seed=s)[2].observation.update.tensors[name] for s in range(3)]
    noise = torch.cat([(s - raw[name]).flatten() for s in sent])
    std = 0.8 * min(variance, 1.0)
    assert noise.std().item() == pytest.approx(std, rel=4 / (2 * len(noise)) ** 0.5)
    assert abs(noise.mean().item()) < 5 * std / len(noise) ** 0.5


def test_it_changes_every_layer_whatever_the_draw(released):
    raw = released(None)[2].observation.update.tensors
    for seed in range(10):
        sent = released(Outpost(), seed=seed)[2].observation.update.tensors
        assert all(not torch.equal(sent[name], raw[name]) for name in raw)


def test_its_noise_is_new_every_time(released):
    one, two = (released(Outpost(), seed=None)[2].observation.update.tensors for _ in range(2))
    assert all(not torch.equal(one[name], two[name]) for name in one)
    rounds = released(Outpost(), releases=2)[2].observation.releases
    assert not torch.equal(rounds[0].tensors["3.weight"], rounds[1].tensors["3.weight"])


def test_it_protects_less_often_in_later_steps(released):
    local = LocalTraining(sends="difference", epochs=40, learning_rate=1e-3)
    protected = []
    for seed in range(3):
        facts = released(Outpost(decay=0.125), local=local, seed=seed)[2].traces[0].facts
        assert facts["steps"] == 40
        protected.append(facts["protected_steps"])
    expected = sum(1 / (1 + 0.125 * i) for i in range(40))
    assert sum(protected) / 3 == pytest.approx(expected, abs=6)
    facts = released(Outpost(decay=0.0), local=local)[2].traces[0].facts
    assert facts["protected_steps"] == 40


def test_knowing_it_pays(attacked):
    naive, informed = attacked(Outpost(noise=0.05))
    assert informed >= naive - 0.3


def test_without_noise_it_is_pruning_whose_zeros_are_seen(released):
    defense = Outpost(noise=0.0)
    _, _, seen = released(defense)
    visible = defense.adversary_view(seen.observation).visible
    assert visible is not None
    for name, tensor in seen.observation.update.tensors.items():
        assert torch.equal(visible[name] != 0, tensor != 0)


@pytest.mark.parametrize("settings", [{"noise": -1.0}, {"prune": 1.0}, {"noisy": 0.0}, {"decay": -0.1}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(InvalidValueError, match="outpost"):
        Outpost(**settings)
