"""Clipping bounds lengths and leaves directions alone, and with them every attack that matches directions."""

import pytest
import torch
from torch import nn

import invertigo
from invertigo import defenses
from invertigo.federation import train_locally
from invertigo.types import InvalidValueError, LocalTraining


def flat(tensors):
    return torch.cat([t.double().flatten() for t in tensors.values()])


@pytest.mark.parametrize("norm", [0.1, 1e3])
def test_clip_shortens_what_is_longer_and_nothing_else(sent_and_raw, norm):
    sent, raw, trace = sent_and_raw(defenses.Clip(norm=norm))
    length = flat(raw).norm()
    assert float(flat(sent).norm()) == pytest.approx(min(norm, float(length)), rel=1e-9)
    assert torch.allclose(flat(sent) / flat(sent).norm(), flat(raw) / length, atol=1e-12)
    assert trace.facts["clipped"] == float(length > norm)


def test_per_example_clip_is_the_mean_of_clipped_gradients(client):
    task, batch = client
    one_by_one = [train_locally(task, batch.select([i]), LocalTraining()).tensors for i in range(len(batch))]
    lengths = [float(flat(g).norm()) for g in one_by_one]
    norm = sorted(lengths)[len(lengths) // 2]  # some are clipped, some are not
    expected = sum(flat(g) * min(1, norm / length) for g, length in zip(one_by_one, lengths)) / len(lengths)
    sent = train_locally(task, batch, LocalTraining(), defense=defenses.PerExampleClip(norm=norm)).tensors
    assert torch.allclose(flat(sent), expected, atol=1e-12)
    assert not torch.allclose(flat(sent), flat(train_locally(task, batch, LocalTraining()).tensors), atol=1e-4)


def test_a_loss_that_is_a_sum_stays_a_sum(client):
    task, batch = client
    summed = type(task)(task.model, nn.CrossEntropyLoss(reduction="sum"), task.domain, task.num_classes)
    raw = train_locally(summed, batch, LocalTraining()).tensors
    sent = train_locally(summed, batch, LocalTraining(), defense=defenses.PerExampleClip(norm=1e6)).tensors
    assert torch.allclose(flat(sent), flat(raw), atol=1e-10)


def test_cosine_attacks_do_not_notice_clipping(observed):
    plain, _ = observed(None, examples=1)
    clip = defenses.Clip(norm=0.01)
    clipped, _ = observed(clip, examples=1)
    attack = {"iterations": 30, "sign": None, "seed": 1}
    first = invertigo.reconstruct(plain.observation, "inverting_gradients", **attack)
    for seen in (clipped.observation, clipped.observation.informed(clip.adversary_view(clipped.observation))):
        found = invertigo.reconstruct(seen, "inverting_gradients", **attack)
        assert torch.allclose(found.fields["images"], first.fields["images"], atol=1e-6)


@pytest.mark.parametrize("defense", [defenses.Clip(norm=0.01), defenses.PerExampleClip(norm=0.01)])
def test_the_view_clips_simulated_updates_as_the_client_does(observed, defense):
    round_, raw = observed(defense, examples=1)
    view = defense.adversary_view(round_.observation)
    twice = view.surrogate({k: torch.stack([t, 0.01 * t / flat(raw).norm() / 2]) for k, t in raw.items()})
    for name, sent in round_.observation.update.tensors.items():
        assert torch.allclose(twice[name][0], sent, atol=1e-12)
        assert torch.allclose(twice[name][1], sent / 2, atol=1e-12)  # short enough to pass as it is


@pytest.mark.parametrize("name", ["clip", "per_example_clip"])
@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_a_bound_must_be_positive(name, norm):
    with pytest.raises(InvalidValueError, match="positive"):
        defenses.make(name, norm=norm)


@pytest.mark.parametrize("name", ["per_example_clip", "dp_sgd"])
def test_batchnorm_is_refused_in_privacy_terms_with_the_fix(client, name):
    task, batch = client
    mixing = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(task.num_classes))
    mixing.double()
    mixing(batch["images"])
    task = type(task)(mixing, task.loss, task.domain, task.num_classes)
    with pytest.raises(InvalidValueError, match=r"BatchNorm[\s\S]*GroupNorm[\s\S]*eval"):
        train_locally(task, batch, LocalTraining(), defense=defenses.make(name))
    assert train_locally(task, batch, LocalTraining(mode="eval"), defense=defenses.PerExampleClip()).tensors
