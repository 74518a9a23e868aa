"""Quantised updates lie on their levels, as near or as unbiased as declared, at the bytes declared."""

import dataclasses
import math

import pytest
import torch

from invertigo import defenses
from invertigo.types import InvalidValueError, ThreatLevel


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_nearest_level_is_at_most_half_a_step_away(sent_and_raw, bits):
    defense = defenses.Quantise(bits=bits)
    sent, raw, _ = sent_and_raw(defense)
    for name, tensor in raw.items():
        step = float(tensor.abs().max()) / (2 ** (bits - 1) - 1)
        assert float((sent[name] - tensor).abs().max()) <= step / 2 * (1 + 1e-9)
        assert len(sent[name].unique()) <= 2**bits - 1
        ratio = sent[name] / step
        assert torch.allclose(ratio, ratio.round(), atol=1e-6)


def test_the_release_shows_the_step(observed):
    defense = defenses.Quantise(bits=4)
    round_, raw = observed(defense)
    view = defense.adversary_view(round_.observation)
    for name, tensor in raw.items():
        assert view.noise_std[name] == pytest.approx(float(tensor.abs().max()) / 7 / math.sqrt(12))


def test_bytes_of_quantised_updates():
    update = {"a": torch.ones(100), "b": torch.ones(3)}
    assert defenses.Quantise(bits=4).wire_bytes(update) == 50 + 4 + 2 + 4
    assert defenses.QSGD(levels=15, bucket=64).wire_bytes(update) == math.ceil(100 * 5 / 8) + 8 + 2 + 4
    assert defenses.Sign().wire_bytes(update) == math.ceil(103 / 8) + 8
    assert defenses.Sign(scaled=False).wire_bytes({"a": torch.tensor([1.0, 0.0])}) == 1


def test_qsgd_is_right_on_average_and_spreads_as_it_must():
    defense = defenses.QSGD(levels=3, bucket=8)
    values = torch.linspace(-1, 1, 20, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([defense._rounded(values, generator) for _ in range(4000)])
    buckets = torch.cat([values, torch.zeros(4, dtype=torch.float64)]).view(3, 8)
    step = (buckets.norm(dim=1, keepdim=True) / 3).expand(3, 8).flatten()[:20]
    ratio = values.abs() / step
    variance = step**2 * (ratio - ratio.floor()) * (1 - ratio + ratio.floor())
    assert torch.allclose(draws.mean(0), values, atol=float(5 * (variance.max() / 4000).sqrt()))
    assert torch.allclose(draws.var(0), variance, atol=0.05 * float(variance.max()) + 1e-3)
    levels = draws / step
    assert torch.allclose(levels, levels.round(), atol=1e-9)


def test_qsgd_averages_out_over_releases_as_the_view_says(observed):
    defense = defenses.QSGD(levels=7)
    round_, raw = observed(defense, releases=10)
    view = defense.adversary_view(round_.observation)
    for name, tensor in raw.items():
        if tensor.numel() < 50:
            continue
        left = float((view.update.tensors[name] - tensor).square().mean().sqrt())
        assert 0.6 * left < view.noise_std[name] < 1.7 * left


@pytest.mark.parametrize("scaled", [True, False])
def test_signs_survive_and_nothing_else(sent_and_raw, scaled):
    sent, raw, _ = sent_and_raw(defenses.Sign(scaled=scaled))
    for name, tensor in raw.items():
        length = tensor.abs().mean() if scaled else torch.ones((), dtype=tensor.dtype)
        assert torch.equal(sent[name], tensor.sign() * length)


@pytest.mark.parametrize("scaled", [True, False])
def test_an_adversary_matches_every_sign_alike_and_can_replay_the_client(observed, scaled):
    defense = defenses.Sign(scaled=scaled)
    round_, raw = observed(defense, examples=1)
    view = defense.adversary_view(round_.observation)
    replayed = view.replay({name: tensor[None] for name, tensor in raw.items()})
    softened = view.surrogate({name: tensor[None] for name, tensor in raw.items()})
    for name, tensor in raw.items():
        assert torch.equal(view.update.tensors[name], tensor.sign())
        assert torch.equal(replayed[name][0], view.update.tensors[name])
        expected = torch.tanh(3.0 * tensor / tensor.abs().mean())
        assert torch.allclose(softened[name][0], expected)


def test_of_a_sum_of_clients_no_single_sign_is_replayed(observed):
    defense = defenses.Sign()
    seen = observed(defense)[0].observation
    summed = dataclasses.replace(seen, knowledge=dataclasses.replace(seen.knowledge, level=ThreatLevel.AGGREGATE))
    assert defense.adversary_view(summed).replay is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [("quantise", {"bits": 1}), ("quantise", {"bits": 40}), ("qsgd", {"levels": 0}), ("qsgd", {"bucket": 0}),
     ("sign", {"step": 0.0}), ("sign", {"sharpness": -1.0})],
)  # fmt: skip
def test_settingsoutside_their_range_are_refused(name, settings):
    with pytest.raises(InvalidValueError):
        defenses.make(name, **settings)


def test_rounded_alike_is_told_on_the_grid_that_was_received(released):
    """The replay of the true update is the release itself, to the bit; another update is rounded otherwise."""
    defense = defenses.Quantise(bits=8)
    raw = released(None, count=1)[2].observation.update.tensors
    observation = released(defense, count=1)[2].observation
    replay = defense.adversary_view(observation).replay
    again = replay({name: torch.stack([t, 1.1 * t]) for name, t in raw.items()})
    assert all(torch.equal(again[name][0], sent) for name, sent in observation.update.tensors.items())
    assert any(not torch.equal(again[name][1], sent) for name, sent in observation.update.tensors.items())
