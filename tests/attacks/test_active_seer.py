"""SEER: what is trained, what leaves the server, and that the reader singles one image out of a batch."""

from __future__ import annotations

import math
import os

import pytest
import torch
from planting import planted
from torch import Tensor
from torch.nn.functional import cross_entropy

from invertigo import data, models
from invertigo.attacks.active import Seer
from invertigo.attacks.active.seer_bait import Bait, brightness
from invertigo.attacks.active.seer_reader import rebuilt_reader
from invertigo.attacks.active.seer_training import weighted_gradients, weightings
from invertigo.data import ImageSet
from invertigo.domains import Images
from invertigo.federation import observe, simulating, train_locally
from invertigo.types import (
    Batch,
    ConfigurationError,
    CorruptFileError,
    LocalTraining,
    Observation,
    RequirementError,
    Task,
)

QUICK = {"steps": 10, "batches": 2, "coordinates": 64, "latent": 16}
SHAPE = {"hidden": (32, 32), "batch_norm": True}


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return data.load("digits")


def task_of(images: ImageSet, **options) -> Task:
    generator = torch.Generator().manual_seed(3)
    model = models.build("mlp", input_shape=images.shape, num_classes=10, generator=generator, **options)
    return Task(model, cross_entropy, Images(images.shape), num_classes=10)


def plant(attack: Seer, task: Task, public: Batch | None, *, size: int = 4, clients: int = 1, seed: int = 0, **more):
    generator = torch.Generator().manual_seed(seed)
    return attack.plant(
        task, LocalTraining(), public=public, num_examples=size, clients=clients, generator=generator, **more
    )


def test_gradients_of_all_examples_weighted_alike_are_what_a_client_sends(digits):
    task = task_of(digits, **SHAPE)
    batch = digits.batch(torch.arange(6))
    sent = train_locally(task, batch, LocalTraining()).tensors
    with simulating(task.model, "train"):
        parameters = dict(task.model.named_parameters())
        ours = weighted_gradients(task)(
            parameters, batch["images"][None], batch["labels"][None], torch.full((1, 1, 6), 1 / 6)
        )
    for name, tensor in sent.items():
        torch.testing.assert_close(ours[name][0], tensor, rtol=1e-4, atol=1e-6)


def test_weightings_add_up_to_the_batch(digits):
    bait = Bait(Images(digits.shape), digits.images, digits.labels, digits.images.flatten(1).mean(1), 5, 1)
    drawn = bait.draw(3, torch.Generator().manual_seed(0))
    mixed = weightings(drawn, torch.Generator().manual_seed(0))
    others = math.sqrt(4) * mixed[:, 2]
    torch.testing.assert_close(mixed[:, 0] + others, mixed[:, 3])
    assert mixed[torch.arange(3), 1, drawn.wanted].abs().max() == 0
    torch.testing.assert_close(mixed[:, 1].norm(dim=1), torch.ones(3))
    bright = drawn.images.flatten(2).mean(2)
    assert drawn.wanted.equal(bright.argmax(1))


def test_one_of_a_crowd_lies_beyond_the_threshold(digits):
    domain = Images(digits.shape)
    score = brightness(domain, digits.images)
    bait = Bait(domain, digits.images, digits.labels, score, 4, 3, threshold=float(score.quantile(11 / 12)))
    drawn = bait.draw(5, torch.Generator().manual_seed(1))
    beyond = (brightness(domain, drawn.images.flatten(0, 1)) > bait.threshold).view(5, 12)
    assert beyond.sum(1).eq(1).all()
    assert beyond[:, :4].any(1).all()


def test_the_reader_is_kept_back_and_reads_the_sum_of_what_examples_send(digits):
    seen, _, _ = planted(Seer(**QUICK), digits, size=4, **SHAPE)
    secret = seen.knowledge.plant.memo
    assert set(seen.knowledge.plant.state) <= {*seen.parameters, *seen.buffers}
    reader = rebuilt_reader(digits.shape, secret)
    own = {name: tensor[None] for name, tensor in seen.update.tensors.items()}
    flat = torch.cat([tensor.flatten() for tensor in seen.update.tensors.values()])
    torch.testing.assert_close(reader.select(own)[0], flat[reader.entries] * reader.scale)
    found = Seer().reconstruct(seen, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.fields["images"], reader(4 * reader.select(own)).clamp(0, 1), rtol=1e-5, atol=1e-5)
    assert "held-out" in found.notes[1]


def test_running_statistics_are_those_of_public_data(digits):
    seen, _, _ = planted(Seer(**QUICK), digits, size=16, **SHAPE)
    name = next(name for name in seen.buffers if name.endswith("running_mean"))
    layer = seen.task.model.get_submodule("body.1")
    with torch.no_grad():
        expected = layer(digits.images[:1500].flatten(1)).mean(0)
    assert (seen.buffers[name] - expected).abs().max() < 0.3 * expected.abs().max()


def test_a_sum_over_clients_or_a_model_without_batchnorm_needs_a_threshold(digits):
    public, free = digits.batch(torch.arange(400)), task_of(digits, hidden=(16,))
    with pytest.raises(RequirementError, match="threshold"):
        plant(Seer(among="batch", **QUICK), free, public)
    with pytest.raises(RequirementError, match="threshold"):
        plant(Seer(among="batch", **QUICK), task_of(digits, **SHAPE), public, clients=2)
    assert plant(Seer(**QUICK), free, public, clients=3).state


@pytest.mark.parametrize(
    ("local", "size", "public", "reason"),
    [
        (LocalTraining(), 4, 0, "labelled public"),
        (LocalTraining(), 30, 20, "too few"),
        (LocalTraining(), 1, 50, "alone"),
        (LocalTraining(sends="difference", epochs=2), 4, 50, "one gradient"),
    ],
)
def test_refusals_say_why_before_anything_is_trained(digits, local, size, public, reason):
    given = digits.batch(torch.arange(public)) if public else None
    with pytest.raises(RequirementError, match=reason):
        Seer(steps=10**9).plant(
            task_of(digits, **SHAPE), local, public=given, num_examples=size, clients=1, generator=torch.Generator()
        )


def test_training_goes_on_where_it_stood(digits, tmp_path):
    public, task = digits.batch(torch.arange(400)), task_of(digits, **SHAPE)
    whole = plant(Seer(**QUICK), task, public)
    path = str(tmp_path / "seer.safetensors")
    attack = Seer(checkpoint=path, **QUICK)
    plant(attack, task, public, progress=lambda tick: tick.done >= 4)
    again = plant(attack, task, public)
    for name, tensor in whole.state.items():
        torch.testing.assert_close(again.state[name], tensor)
    reused = plant(Seer(**QUICK, checkpoint=path, seconds=1e6), task, public, seed=5)
    assert all(reused.state[name].equal(again.state[name]) for name in dict(task.model.named_parameters()))
    with pytest.raises(ConfigurationError, match="4 examples"):
        plant(attack, task, public, size=5)
    with pytest.raises(CorruptFileError, match="another training"):
        plant(Seer(**{**QUICK, "latent": 8}, checkpoint=path), task, public)


def singled_out(attack: Seer, images: ImageSet, *, size: int, rounds: int) -> tuple[float, Tensor, Tensor]:
    """Share of rounds whose brightest private image is the nearest to what is drawn; dB of it, and of a constant."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    cut = 2 * len(images) // 3
    public, rest = images.batch(order[:cut]), order[cut:]
    task = task_of(images, **SHAPE)
    sent = plant(attack, task, public, size=size)
    hits, ours, constant = [], [], []
    for _ in range(rounds):
        batch = images.batch(rest[torch.randperm(len(rest), generator=generator)[:size]])
        seen: Observation = observe(task, batch, LocalTraining(), level=5, public=public, plant=sent)
        found = attack.reconstruct(seen, generator=generator).fields["images"]
        errors = (batch["images"] - found).flatten(1).square().mean(1)
        brightest = batch["images"].flatten(1).mean(1).argmax()
        hits.append(bool(errors.argmin() == brightest))
        ours.append(errors[brightest])
        constant.append(batch["images"][brightest])
    shown = torch.stack(constant)
    guess = (shown - shown.mean(0)).flatten(1).square().mean(1)
    return sum(hits) / rounds, -10 * torch.stack(ours).log10(), -10 * guess.log10()


@pytest.mark.slow
def test_the_brightest_of_sixteen_digits_is_singled_out(digits):
    share, ours, constant = singled_out(Seer(steps=400), digits, size=16, rounds=60)
    assert share > 0.5
    assert ours.mean() > constant.mean() + 1.5


@pytest.mark.slow
@pytest.mark.skipif("INVERTIGO_DATA" not in os.environ, reason="INVERTIGO_DATA does not name a folder with MNIST")
def test_the_brightest_of_sixteen_mnist_images_is_singled_out():
    share, ours, constant = singled_out(Seer(steps=400), data.load("mnist", split="test"), size=16, rounds=60)
    assert share > 0.4
    assert ours.mean() > constant.mean() + 1
