"""MixUp and InstaHide: who is blended with whom, with which weights and labels, and how that is undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from invertigo.defenses import InstaHide, MixUp
from invertigo.defenses.mixing import MIXTURE, numpy_generator, partners
from invertigo.federation import train_locally
from invertigo.testing.defenses import easy_client
from invertigo.types import Batch, InvalidValueError, LocalTraining


class Spy:
    """A defense that keeps what it made of the batch."""

    def __init__(self, defense):
        self._defense, self.made = defense, []

    def __getattr__(self, name):
        return getattr(self._defense, name)

    def on_batch(self, batch, step):
        self.made.append(self._defense.on_batch(batch, step))
        return self.made[-1]


def encoded(defense, seed=0, count=4, task=None):
    client = easy_client()
    spy, batch = Spy(defense), client.batch.select(slice(0, count))
    train_locally(task or client.task, batch, LocalTraining(), defense=spy, secret=torch.Generator().manual_seed(seed))
    return batch, spy.made[0]


def weights_from_labels(made):
    """With a class of its own for each example, the blended labels are the weights."""
    return made["labels"]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_blends_every_example_with_one_other(alpha):
    shares = []
    for seed in range(20):
        batch, made = encoded(MixUp(alpha=alpha), seed)
        weights = weights_from_labels(made)
        assert torch.allclose(weights.sum(1), torch.ones(4, dtype=torch.float64))
        assert (weights > 0).sum(1).max() == 2
        own = weights.diagonal()
        assert torch.allclose(own, own[0].expand(4))
        assert torch.allclose(made["images"], torch.einsum("ij,jchw->ichw", weights, batch["images"]))
        shares.append(own[0].item())
    assert np.std(shares) == pytest.approx((1 / (4 * (2 * alpha + 1))) ** 0.5, rel=0.45)


def test_nobody_is_its_own_partner():
    draw = numpy_generator(torch.Generator().manual_seed(0))
    for count in (2, 3, 7):
        for _ in range(30):
            found = partners(count, draw)
            assert sorted(found) == list(range(count))
            assert (found != np.arange(count)).all()


def test_instahide_mixes_and_flips_about_the_middle():
    _, made = encoded(InstaHide(mix=3))
    batch = easy_client().batch
    weights = weights_from_labels(made)
    assert torch.allclose(weights.sum(1), torch.ones(4, dtype=torch.float64))
    assert ((weights > 0).sum(1) == 3).all()
    assert weights.max() <= 2 / 3 + 1e-9
    mixture = torch.einsum("ij,jchw->ichw", weights, batch["images"])
    assert torch.allclose((made["images"] - 0.5).abs(), (mixture - 0.5).abs())
    flipped = ((made["images"] - 0.5) * (mixture - 0.5) < 0).double()
    assert flipped.mean().item() == pytest.approx(0.5, abs=0.05)
    assert made["images"].min() >= 0
    assert made["images"].max() <= 1


def test_weights_of_instahide_keep_to_their_bounds():
    weights = InstaHide(mix=4).weights(12, np.random.default_rng(0))
    assert weights.max() <= 0.65
    assert ((weights > 0).sum(1) == 4).all()
    assert (weights.diagonal() > 0).all()
    own = InstaHide(mix=4).weights(2000, np.random.default_rng(1)).diagonal().mean().item()
    assert own == pytest.approx(dirichlet_mean(), abs=0.02)


def dirichlet_mean():
    """Mean first weight of Dirichlet(3, 1, 1, 1) under 0.65, from independent draws: gamma variables over their sum."""
    gammas = np.random.default_rng(2).gamma([3.0, 1.0, 1.0, 1.0], size=(20000, 4))
    shares = gammas / gammas.sum(1, keepdims=True)
    return shares[shares.max(1) <= 0.65][:, 0].mean()


def test_instahide_still_flips_a_single_example():
    batch, made = encoded(InstaHide(), count=1)
    assert not torch.equal(batch["images"], made["images"])
    assert torch.allclose((made["images"] - 0.5).abs(), (batch["images"] - 0.5).abs())


@pytest.mark.parametrize("defense", [MixUp(), InstaHide(mix=2)])
def test_draws_are_new_every_time_and_inside_a_step(defense):
    assert not torch.equal(encoded(defense, 0)[1]["images"], encoded(defense, 1)[1]["images"])
    client = easy_client()
    spy = Spy(defense)
    local = LocalTraining(sends="difference", batch_size=2)
    train_locally(client.task, client.batch, local, defense=spy, secret=torch.Generator().manual_seed(0))
    assert [len(made) for made in spy.made] == [2, 2]
    assert not spy.made[0]["labels"][:, 2:].any()


def test_an_adversary_who_found_the_weights_simulates_the_release(released):
    defense = MixUp()
    task, batch, seen = released(defense, count=4)
    view = defense.adversary_view(seen.observation)
    assert view.unknowns == {MIXTURE: (4, 4)}
    weights = encoded(defense, 0)[1]["labels"]
    logits = 3 * ((weights + 1e-30).log() - 2 * torch.eye(4, dtype=torch.float64))
    made = view.transform({**batch.fields, MIXTURE: logits})
    assert torch.allclose(made["labels"], weights)
    loss = task.loss(task.model(made["images"]), made["labels"])
    gradients = torch.autograd.grad(loss, list(task.model.parameters()))
    for (name, _), gradient in zip(task.model.named_parameters(), gradients):
        assert torch.allclose(gradient, seen.observation.update.tensors[name]), name
    drawn = view.draw(batch.fields, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn["images"], encoded(defense, 0)[1]["images"])


def test_knowing_mixup_does_not_hurt(attacked):
    naive, informed = zip(*(attacked(MixUp(), count=2, seed=seed) for seed in (1, 2)))
    assert sum(informed) / 2 > sum(naive) / 2 - 0.3


def test_knowing_instahide_does_not_hurt(attacked):
    naive, informed = attacked(InstaHide(mix=1))
    assert informed > naive - 0.3


def test_mixup_refuses_to_leave_one_example_alone():
    with pytest.raises(InvalidValueError, match="instahide"):
        encoded(MixUp(), count=1)


def test_labels_cannot_be_blended_without_the_number_of_classes():
    task = replace(easy_client().task, num_classes=None)
    with pytest.raises(InvalidValueError, match="num_classes"):
        encoded(MixUp(), task=task)


def test_labels_that_are_probabilities_are_blended_as_they_are():
    client = easy_client()
    soft = Batch({"images": client.batch["images"], "labels": torch.full((4, 4), 0.25, dtype=torch.float64)})
    spy = Spy(MixUp())
    train_locally(client.task, soft, LocalTraining(), defense=spy, secret=torch.Generator().manual_seed(0))
    assert torch.allclose(spy.made[0]["labels"], soft["labels"])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(MixUp, {"alpha": 0.0}), (InstaHide, {"mix": 0}), (InstaHide, {"most": 0.2}), (InstaHide, {"least": 0.3})],
)
def test_bad_settings_are_refused(kind, settings):
    with pytest.raises(InvalidValueError, match=kind.name):
        kind(**settings)
