"""What several releases tell: their mean, the direction they avoid, and whether one can be a true gradient at all."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from invertigo.attacks.classifier_loss import ClassifierLoss
from invertigo.attacks.releases import avoided_direction, mean_update
from invertigo.domains import Images
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, Task, Update

CLASSES = 6


def observation(loss=F.cross_entropy, *, local=None, examples=3, seed=0, head_bias=True):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, CLASSES, bias=head_bias))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    images = torch.rand(examples, 1, 4, 4, generator=generator)
    labels = torch.randint(CLASSES, (examples,), generator=generator)
    task = Task(model, loss, Images((1, 4, 4)), CLASSES)
    return observe(task, Batch({"images": images, "labels": labels}), local or LocalTraining(), level=1)


def noise_like(update, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return Update({k: torch.randn(t.shape, generator=generator) for k, t in update.tensors.items()}, update.kind)


def orthogonal_vectors(count, entries, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden, drawn = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((entries,), (count, entries)))
    hidden /= hidden.norm()
    return hidden, drawn - (drawn @ hidden)[:, None] * hidden


@given(st.integers(2, 25), st.integers(0, 4), st.integers(0, 99))
def test_one_less_than_the_entries_is_enough_and_necessary(entries, more, seed):
    hidden, vectors = orthogonal_vectors(entries - 1 + more, entries, seed)
    lengths = torch.linspace(1e-3, 1e3, len(vectors), dtype=torch.float64)
    found = avoided_direction(vectors * lengths[:, None])
    assert found is not None
    assert abs(float(found @ hidden)) == pytest.approx(1, abs=1e-6)
    if entries > 2:
        assert avoided_direction(vectors[: entries - 2]) is None


def test_vectors_that_leave_no_single_direction_give_none():
    _, vectors = orthogonal_vectors(9, 10, 0)
    assert avoided_direction(vectors, spare=1) is None
    assert avoided_direction(torch.cat([vectors, vectors]), spare=1) is not None
    assert avoided_direction(vectors[:1].expand(12, -1)) is None, "the same vector twelve times is one vector"
    assert avoided_direction(torch.cat([vectors[:5], torch.zeros(20, 10)])) is None, "zeros tell nothing"
    generator = torch.Generator().manual_seed(3)
    assert avoided_direction(torch.randn(12, 10, generator=generator), spare=1) is None
    assert avoided_direction(torch.ones(3, 1)) is None


def test_the_mean_keeps_what_was_sent_and_may_keep_its_length():
    releases = [Update({"w": torch.tensor([3.0, 4.0]) * s, "z": torch.zeros(2)}, "gradient") for s in (1, -1, 1)]
    torch.testing.assert_close(mean_update(releases).tensors["w"], torch.tensor([1.0, 4 / 3]))
    long = mean_update(releases, keep_length=True).tensors
    assert long["w"].norm().item() == pytest.approx(5)
    assert not long["z"].any()


@pytest.mark.parametrize("local", [LocalTraining(), LocalTraining(sends="difference", batch_size=1, epochs=2)])
@pytest.mark.parametrize("head_bias", [True, False])
def test_cross_entropy_allows_true_updates_only(local, head_bias):
    seen = observation(local=local, head_bias=head_bias)
    loss = ClassifierLoss.of(seen)
    assert loss.forbidden.shape == (1, CLASSES)
    torch.testing.assert_close(loss.forbidden.abs(), torch.full((1, CLASSES), CLASSES**-0.5, dtype=torch.float64))
    assert loss.allows(seen.update)
    assert not loss.allows(noise_like(seen.update))


def test_a_loss_that_forbids_nothing_tells_nothing():
    def one_against_all(scores, labels):
        return F.binary_cross_entropy_with_logits(scores, F.one_hot(labels, CLASSES).to(scores))

    seen = observation(one_against_all)
    loss = ClassifierLoss.of(seen)
    assert len(loss.forbidden) == 0
    assert not loss.allows(seen.update)


@pytest.mark.parametrize("local", [LocalTraining(), LocalTraining(sends="difference", learning_rate=0.5)])
@pytest.mark.parametrize("examples", [1, 2, 5])
def test_the_sign_of_the_bias_follows_from_the_loss(local, examples):
    for seed in range(5):
        seen = observation(local=local, examples=examples, seed=seed)
        loss = ClassifierLoss.of(seen)
        bias = seen.update.tensors["3.bias"]
        assert loss.sign(bias) == (1, True)
        assert loss.sign(-bias) == (-1, True)
        assert loss.sign(bias + bias.norm()) is None


def test_no_classifier_no_reading():
    seen = observation()
    headless = dataclasses.replace(seen, task=dataclasses.replace(seen.task, num_classes=7))
    assert ClassifierLoss.of(headless) is None
