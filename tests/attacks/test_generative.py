"""Search inside a decoder: what it draws, which problem it poses, and that it follows what is known of a defense."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from invertigo import attacks, data, models
from invertigo.attacks.generative.search import Drawing, StayNear, inside
from invertigo.attacks.matching.engine import Matching
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.objectives import Cosine
from invertigo.attacks.matching.priors import Belief
from invertigo.domains import Images
from invertigo.federation import observe, train_locally
from invertigo.federation.functional import simulating
from invertigo.models.autoencoder import fit_autoencoder
from invertigo.types import AdversaryView, Batch, InvalidValueError, LocalTraining, Task

DOMAIN = Images((1, 8, 8), mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def prior():
    pixels = data.load("digits", limit=400).images[50:]
    return fit_autoencoder(pixels, latent=8, width=4, epochs=8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def task():
    model = models.build(
        "mlp", input_shape=(1, 8, 8), num_classes=10, generator=torch.Generator().manual_seed(0), hidden=(24,)
    )
    return Task(model, cross_entropy, DOMAIN, 10)


def batch(part):
    digits = data.load("digits", limit=400)
    return Batch({"images": DOMAIN.from_pixels(digits.images[part]), "labels": digits.labels[part]})


def test_every_stage_draws_the_same_picture_from_what_the_latents_lead_to(prior):
    latents = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    expected = DOMAIN.from_pixels(prior.decode(latents))
    for stage in range(3):
        drawing = Drawing(prior, DOMAIN, stage)
        unknown = drawing.features(latents)
        assert tuple(unknown.shape[1:]) == drawing.shape
        torch.testing.assert_close(drawing(unknown), expected)
    torch.testing.assert_close(
        Drawing(prior, DOMAIN, 1).features(latents[None])[0], Drawing(prior, DOMAIN, 1).features(latents)
    )


def test_the_simulated_update_is_that_of_the_drawn_images_after_the_defense(prior, task):
    private = batch(slice(0, 2))
    seen = observe(task, private, LocalTraining(), level=4, public=batch(slice(50, None)))
    view = AdversaryView("halved", transform=lambda fields: {**fields, "images": fields["images"] / 2})
    latents = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    for observation, factor in ((seen, 1.0), (seen.informed(view), 0.5)):
        matching = Matching(name="x", objective=Cosine(), optimiser=Adam(iterations=1))
        problem = inside(matching.problem(observation)[0], Drawing(prior, DOMAIN))
        with simulating(task.model, "train"):
            sent, _ = problem.simulate(torch.stack([latents.flatten(), -latents.flatten()]))
        drawn = factor * DOMAIN.from_pixels(prior.decode(latents))
        real = train_locally(task, Batch({"images": drawn, "labels": private["labels"]}), LocalTraining())
        for found, name in zip(sent, seen.parameters):
            torch.testing.assert_close(found[0], real.tensors[name], rtol=1e-4, atol=1e-6)


def test_staying_near_costs_the_squared_distance():
    origin = torch.zeros(1, 2, 3)
    belief = Belief(torch.stack([torch.zeros(2, 3), torch.full((2, 3), 2.0)]), {}, None)
    torch.testing.assert_close(StayNear(0.5, origin)(belief), torch.tensor([0.0, 2.0]))


def test_it_finds_a_digit_that_its_decoder_can_draw(task):
    attack = attacks.GenerativePrior(iterations=240, restarts=3, latent=16, width=8, epochs=25)
    private, public = batch(slice(0, 1)), batch(slice(50, None))
    seen = observe(task, private, LocalTraining(), level=4, public=public)
    found = attack.reconstruct(seen, generator=torch.Generator().manual_seed(0))
    blind = replace(attack, prior_only=True).reconstruct(seen, generator=torch.Generator().manual_seed(0))
    errors = [(one.fields["images"] - private["images"]).square().mean() for one in (found, blind)]
    mean = (public["images"].mean(0) - private["images"]).square().mean()
    assert errors[0] < 0.7 * mean
    assert errors[0] < 0.6 * errors[1]
    assert found.notes[0].startswith("drawn from stage")


def test_features_explain_the_update_no_worse_than_latents_alone(task, monkeypatch):
    attack = attacks.GenerativePrior(iterations=80, restarts=2, latent=8, width=4, epochs=4)
    seen = observe(task, batch(slice(0, 1)), LocalTraining(), level=4, public=batch(slice(50, None)))
    both = attack.reconstruct(seen, generator=torch.Generator().manual_seed(0))
    first = {}
    search = attacks.GenerativePrior._latents
    monkeypatch.setattr(attacks.GenerativePrior, "_latents", lambda *a, **k: first.setdefault("found", search(*a, **k)))
    attack.reconstruct(seen, generator=torch.Generator().manual_seed(0))
    assert both.objective <= first["found"].objective


@pytest.mark.parametrize("name", ["iterations", "restarts", "latent", "epochs"])
def test_senseless_settings_are_refused(name):
    with pytest.raises(InvalidValueError, match=name):
        attacks.GenerativePrior(**{name: 0})
