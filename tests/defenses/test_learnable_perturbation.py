"""Perturbation in latent space: what is trained on, what an adversary simulates, and the game that trains the head."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from invertigo import attacks, data, defenses, models
from invertigo.defenses.perturbation.latent import Head, LatentPerturbation
from invertigo.defenses.perturbation.minimax import Game, Players, play
from invertigo.defenses.perturbation.release import prepared
from invertigo.domains import Images
from invertigo.federation import observe, train_locally
from invertigo.models import memory
from invertigo.models.autoencoder import fit_autoencoder
from invertigo.types import (
    Batch,
    ConfigurationError,
    CorruptFileError,
    InvalidValueError,
    LocalTraining,
    MismatchError,
    Task,
)

SMALL = {"latent": 6, "width": 4, "autoencoder_epochs": 3}
DEFENSES = [
    defenses.AutoencoderOnly(**SMALL),
    defenses.LatentNoise(energy=0.7, **SMALL),
    defenses.LearnablePerturbation(energy=0.7, epochs=1, **SMALL),
]
NAMES = [defense.name for defense in DEFENSES]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def task():
    model = models.build("mlp", input_shape=(1, 8, 8), num_classes=10, generator=generator(), hidden=(12,))
    return Task(model, cross_entropy, Images((1, 8, 8), mean=(0.3,), std=(0.4,)), 10)


@pytest.fixture(scope="module")
def public(task):
    found = data.load("digits", limit=220).batch(slice(20, None))
    return Batch({**found.fields, "images": task.domain.from_pixels(found["images"])})


@pytest.fixture(scope="module")
def private(task):
    found = data.load("digits", limit=3).batch(slice(None))
    return Batch({**found.fields, "images": task.domain.from_pixels(found["images"])})


def by_hand(task, batch, noise, energy):
    """The perturbed batch, spelled out from the prepared tensors."""
    p = LatentPerturbation.from_tensors(task.prepared, task.domain.shape, batch["images"])
    pixels = batch["images"] * 0.4 + 0.3
    z = (p.autoencoder.encoder(pixels) - task.prepared["autoencoder.mean"]) / task.prepared["autoencoder.deviation"]
    step = energy * noise
    if p.head is not None:
        direction = p.head.layers(torch.cat([z, noise], 1))
        step = energy * 6**0.5 * torch.nn.functional.normalize(direction, dim=1)
    moved = (z + step) * task.prepared["autoencoder.deviation"] + task.prepared["autoencoder.mean"]
    return Batch({**batch.fields, "images": (p.autoencoder.decoder(moved).detach() - 0.3) / 0.4})


@pytest.mark.parametrize("defense", DEFENSES, ids=NAMES)
def test_the_update_is_that_of_the_perturbed_images(defense, task, public, private):
    ready = defense.prepare(task, public, generator=generator())
    sent = train_locally(ready, private, LocalTraining(), defense=defense, secret=generator(5))
    changed = by_hand(ready, private, torch.randn(3, 6, generator=generator(5)), getattr(defense, "energy", 0.0))
    expected = train_locally(task, changed, LocalTraining())
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(sent.tensors[name], tensor, rtol=1e-3, atol=1e-5)
    assert (changed["images"] - private["images"]).square().mean() > 0.01


@pytest.mark.parametrize("defense", DEFENSES, ids=NAMES)
def test_the_informed_adversary_simulates_the_same(defense, task, public, private):
    ready = defense.prepare(task, public, generator=generator())
    seen = observe(ready, private, LocalTraining(), level=4, public=public, defense=defense, secret=generator(5))
    view, energy = defense.adversary_view(seen), getattr(defense, "energy", 0.0)
    at_mean = by_hand(ready, private, torch.zeros(3, 6), energy)
    torch.testing.assert_close(view.transform(private.fields)["images"], at_mean["images"], rtol=1e-4, atol=1e-4)
    drawn = view.draw(private.fields, generator(8))
    expected = by_hand(ready, private, torch.randn(3, 6, generator=generator(8)), energy)
    torch.testing.assert_close(drawn["images"], expected["images"], rtol=1e-4, atol=1e-4)
    images = private["images"].clone().requires_grad_()
    assert torch.autograd.grad(view.transform({"images": images})["images"].sum(), images)[0].any()


def test_noise_and_head_move_the_latents_by_the_same_energy():
    autoencoder = fit_autoencoder(
        torch.rand(20, 1, 8, 8, generator=generator()), latent=6, epochs=1, generator=generator()
    )
    latents, noise = torch.randn(2, 4000, 6, generator=generator(1))
    for head in (None, Head(6, 8)):
        step = LatentPerturbation(autoencoder, head).step(latents, noise, 1.5)
        assert step.square().mean().item() == pytest.approx(1.5**2, rel=0.05)


def test_latents_are_standardised_by_what_the_autoencoder_saw():
    pixels = data.load("digits", limit=100).images
    fitted = fit_autoencoder(pixels, latent=6, width=4, epochs=2, generator=generator())
    latents = fitted.encode(pixels)
    assert latents.mean(0).abs().max() < 1e-4
    torch.testing.assert_close(latents.std(0), torch.ones(6), rtol=1e-3, atol=1e-3)


def test_a_longer_fit_keeps_more_of_the_image():
    pixels = data.load("digits", limit=300).images
    short, long = (fit_autoencoder(pixels, latent=16, width=8, epochs=n, generator=generator()) for n in (1, 40))
    errors = [(fitted(pixels) - pixels).square().mean() for fitted in (short, long)]
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.7 * pixels.var(0).mean()


def test_weights_are_read_from_a_file(tmp_path, task, public, private):
    defense = DEFENSES[2]
    ready = defense.prepare(task, public, generator=generator())
    save_file(dict(ready.prepared), tmp_path / "head.safetensors")
    path = str(tmp_path / "head.safetensors")
    loaded = replace(defense, weights=path).prepare(task, None, generator=generator())
    assert loaded.prepared.keys() == ready.prepared.keys()
    assert all(torch.equal(loaded.prepared[name], ready.prepared[name]) for name in ready.prepared)
    control = defenses.LatentNoise(weights=path).prepare(task, None, generator=generator())
    assert prepared(control, "latent_noise").head is None
    other = replace(task, domain=Images((3, 8, 8)))
    with pytest.raises(MismatchError, match=r"\(3, 8, 8\)"):
        replace(defense, weights=path).prepare(other, None, generator=generator())
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CorruptFileError, match="broken"):
        replace(defense, weights=str(tmp_path / "broken.safetensors")).prepare(task, None, generator=generator())


@pytest.mark.parametrize("defense", DEFENSES, ids=NAMES)
def test_it_must_be_prepared_on_public_images(defense, task, private):
    with pytest.raises(ConfigurationError, match="has not been prepared"):
        train_locally(task, private, LocalTraining(), defense=defense)
    with pytest.raises(ConfigurationError, match="would otherwise leak private ones"):
        defense.prepare(task, None, generator=generator())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"energy": -1.0}, "energy is -1"), ({"energy": 0.0}, "autoencoder_only"), ({"privacy": -0.1}, "privacy is -0.1"),
     ({"latent": 0}, "latent is 0"), ({"epochs": 0}, "epochs is 0")],
)  # fmt: skip
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(InvalidValueError, match=message):
        defenses.LearnablePerturbation(**settings)
    with pytest.raises(InvalidValueError, match="autoencoder_only"):
        defenses.LatentNoise(energy=0.0)


def test_each_player_moves_only_its_own_weights(task, public):
    pixels = task.domain.to_pixels(public["images"])
    autoencoder = fit_autoencoder(pixels, latent=6, width=4, epochs=1, generator=generator())
    players = Players.seated(task, public, autoencoder, Game(epochs=1, judge_epochs=1), generator())
    part = torch.arange(16)

    def state():
        return {
            **{name: [p.clone() for p in part.parameters()] for name, part in players.parts().items()},
            "judge": [p.clone() for p in players.judge.parameters()],
            "autoencoder": [p.clone() for p in players.perturbation.autoencoder.parameters()],
        }

    def moved(before, after):
        return {name for name in before if any(not torch.equal(a, b) for a, b in zip(before[name], after[name]))}

    before = state()
    players._attack(part, generator())
    between = state()
    players._defend(part, generator())
    assert moved(before, between) == {"attacker"}
    assert moved(between, state()) == {"head", "client"}


def test_the_task_is_left_alone_and_the_game_draws_from_its_generator(task, public):
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    global_state = torch.get_rng_state()
    memory.forget()
    one = DEFENSES[2].prepare(task, public, generator=generator(1)).prepared
    memory.forget()
    two = DEFENSES[2].prepare(task, public, generator=generator(1)).prepared
    other = DEFENSES[2].prepare(task, public, generator=generator(2)).prepared
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.layers.0.weight"], other["head.layers.0.weight"])
    assert all(torch.equal(before[name], tensor) for name, tensor in task.model.state_dict().items())
    assert torch.equal(global_state, torch.get_rng_state())


def test_an_interrupted_game_goes_on_to_the_same_bits(tmp_path, task, public):
    autoencoder = fit_autoencoder(
        task.domain.to_pixels(public["images"]), latent=6, width=4, epochs=1, generator=generator()
    )
    game = Game(epochs=3, judge_epochs=1, sketch=64, hidden=16)
    whole = play(task, public, autoencoder, game, generator=generator(4)).tensors()
    path, seen = tmp_path / "game.safetensors", []
    play(task, public, autoencoder, game, generator=generator(4), checkpoint=path, watch=lambda r: True)
    rest = play(
        task, public, autoencoder, game, generator=generator(4), checkpoint=path, watch=lambda r: seen.append(r.epoch)
    ).tensors()  # fmt: skip
    assert seen == [2, 3]
    assert all(torch.equal(whole[name], rest[name]) for name in whole)
    with pytest.raises(CorruptFileError, match="another training"):
        play(task, public, autoencoder, replace(game, hidden=8), generator=generator(4), checkpoint=path)


@pytest.fixture(scope="module")
def fresh_errors(task):
    """Squared error of each of twenty private digits, by defense and by whether the fresh attacker knows it."""
    digits = data.load("digits")
    images = task.domain.from_pixels(digits.images)
    public = Batch({"images": images[200:1400], "labels": digits.labels[200:1400]})
    private = [i for label in (3, 8) for i in (digits.labels[:200] == label).nonzero()[:10, 0].tolist()]
    attack, errors = attacks.AmortisedInverter(iterations=200), {}
    for defense in (
        defenses.AutoencoderOnly(latent=32, autoencoder_epochs=15),
        defenses.LearnablePerturbation(latent=32, autoencoder_epochs=15, epochs=6),
    ):
        ready = defense.prepare(task, public, generator=generator())
        for knows in (False, True):
            found = []
            for i in private:
                one = Batch({"images": images[i : i + 1], "labels": digits.labels[i : i + 1]})
                seen = observe(
                    ready, one, LocalTraining(), level=4, public=public, defense=defense, secret=generator(i)
                )
                seen = seen.informed(defense.adversary_view(seen)) if knows else seen
                rebuilt = attack.reconstruct(seen, generator=generator(9)).fields["images"]
                found.append((rebuilt - one["images"]).square().mean())
            errors[defense.name, knows] = torch.stack(found)
    return errors


def clearly_more(one, other):
    """Over the same images, by more than twice the standard error."""
    difference = one - other
    return float(difference.mean()) > 2 * float(difference.std()) / len(difference) ** 0.5


@pytest.mark.slow
def test_an_attacker_trained_on_clients_with_the_head_undoes_part_of_it(fresh_errors):
    """What is public is no secret: who simulates the defense comes nearer than who does not."""
    naive, informed = (fresh_errors["learnable_perturbation", knows] for knows in (False, True))
    assert clearly_more(naive, informed)


@pytest.mark.slow
def test_the_head_hides_more_than_the_autoencoder_from_who_does_not_know_it(fresh_errors):
    """That is what the game trains it for."""
    assert clearly_more(fresh_errors["learnable_perturbation", False], fresh_errors["autoencoder_only", False])


@pytest.mark.slow
def test_the_head_tells_a_fresh_attacker_no_more_than_the_autoencoder(fresh_errors):
    """A step that moves images apart and adds noise cannot make the code easier to read; by how much it is harder is
    a result, not a promise (see the study)."""
    assert not clearly_more(fresh_errors["autoencoder_only", True], fresh_errors["learnable_perturbation", True])
