"""PRECODE's bottleneck draws anew for each example, adds its divergence to the loss, and is part of the task."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cross_entropy, softplus

from invertigo.defenses import Precode
from invertigo.defenses.precode import NOISE
from invertigo.testing.defenses import easy_client
from invertigo.types import Batch, InvalidValueError

SMALL = Precode(size=8, beta=0.01)


def prepared(defense=SMALL):
    client = easy_client()
    return client, defense.prepare(client.task, None, generator=torch.Generator().manual_seed(0))


def by_hand(task, fields, beta):
    """The loss step by step: features, code, decoded features, logits, and the divergence by torch.distributions."""
    inner, bottleneck = task.model.model, task.model.bottleneck
    mean, raw = bottleneck.encode(inner[:-1](fields["images"])).chunk(2, -1)
    std = softplus(raw)
    code = mean + std * fields[NOISE]
    divergence = kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), torch.ones_like(std))).sum(-1)
    loss = cross_entropy(inner[-1](bottleneck.decode(code)), fields["labels"])
    return loss + beta * divergence.mean() / math.log(2)


def test_the_loss_is_that_of_the_paper():
    client, task = prepared()
    noise = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fields = {**client.batch.fields, NOISE: noise}
    assert task.evaluate(task.model, fields).item() == pytest.approx(by_hand(task, fields, 0.01).item())
    free = replace(SMALL, beta=0.0).prepare(client.task, None, generator=torch.Generator().manual_seed(0))
    assert task.evaluate(task.model, fields) > free.evaluate(free.model, fields)


def test_the_users_model_is_left_alone_and_weights_follow_the_generator():
    client, task = prepared()
    assert len(list(client.task.model.parameters())) == 6
    again = prepared()[1]
    ours, theirs = task.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_gradients_are_random_and_each_example_has_its_own_draw(released):
    one, two = (released(SMALL, seed=None)[2].observation.update.tensors for _ in range(2))
    assert all(not torch.equal(one[name], two[name]) for name in one)
    _, batch, _ = released(SMALL)
    drawn = SMALL._drawn(batch.fields, torch.Generator().manual_seed(3))[NOISE]
    assert drawn.shape == (2, 8)
    assert not torch.equal(drawn[0], drawn[1])


def test_outside_of_training_it_is_a_plain_classifier():
    client, task = prepared()
    logits = task.model(client.batch["images"])
    assert logits.shape == (4, 4)
    assert torch.equal(logits, task.model(client.batch["images"]))


def test_an_adversary_with_the_draws_simulates_the_release_exactly(released):
    task, batch, seen = released(SMALL)
    secret = torch.Generator().manual_seed(0)
    fields = SMALL._drawn(batch.fields, secret)
    gradients = torch.autograd.grad(task.evaluate(task.model, fields), list(task.model.parameters()))
    for (name, _), gradient in zip(task.model.named_parameters(), gradients):
        assert torch.allclose(gradient, seen.observation.update.tensors[name], atol=1e-12), name
    view = SMALL.adversary_view(seen.observation)
    assert view.unknowns == {NOISE: (2, 8)}


def test_knowing_it_pays(attacked):
    naive, informed = attacked(SMALL)
    assert informed > naive - 0.3


def test_a_training_step_of_ones_own_is_refused():
    client = easy_client()
    own = replace(client.task, step_loss=lambda call, fields: call(fields["images"]).sum())
    with pytest.raises(InvalidValueError, match="divergence"):
        SMALL.prepare(own, None, generator=torch.Generator())


def test_a_model_without_a_linear_classifier_is_refused():
    client = easy_client()
    task = replace(client.task, model=nn.Sequential(nn.Conv2d(1, 4, 16), nn.Flatten()).double())
    with pytest.raises(InvalidValueError, match="precode"):
        SMALL.prepare(task, Batch(client.public.fields), generator=torch.Generator())


@pytest.mark.parametrize("settings", [{"size": 0}, {"beta": -1.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(InvalidValueError, match="precode"):
        Precode(**settings)
