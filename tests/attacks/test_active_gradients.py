"""Fishing, shaped losses, class means and latent bins: whose gradient it is, and what is rebuilt from it."""

from __future__ import annotations

import pytest
import torch
from planting import planted, psnr
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from invertigo import data
from invertigo.attacks.active import ClassFishing, ClassMeans, FeatureFishing, Geminio, Imprint, ScaleMIA
from invertigo.attacks.active.encoder import codes, find_middle
from invertigo.data import ImageSet
from invertigo.federation import send, simulating
from invertigo.types import Batch, Observation, RequirementError


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return data.load("digits")


def reconstruct(attack, seen: Observation):
    return attack.reconstruct(seen, generator=torch.Generator().manual_seed(0))


def sizes(seen: Observation, batch: Batch) -> Tensor:
    """(example,) norm of each one's own gradient below the classifier."""
    kept = {n: p for n, p in seen.parameters.items() if not n.startswith("head")}
    rest = {n: p for n, p in seen.parameters.items() if n.startswith("head")}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(seen.task.model, {**rest, **parameters}, (image[None],)), label[None])

    own = vmap(grad(loss), (None, 0, 0))(kept, batch["images"], batch["labels"])
    return torch.cat([g.flatten(1) for g in own.values()], 1).norm(dim=1)


@pytest.mark.parametrize("target", [2, 7])
def test_class_fishing_silences_all_other_classes_and_counts_its_catch(digits, target):
    attack = ClassFishing(target=target, iterations=5)
    seen, _, batch = planted(attack, digits, "lenet", size=32, activation="sigmoid")
    norms, wanted = sizes(seen, batch), batch["labels"] == target
    assert norms[~wanted].max() < 1e-6 * norms[wanted].min()
    found = reconstruct(attack, seen)
    assert len(found.fields["images"]) == int(wanted.sum())
    assert bool((found.fields["labels"] == target).all())


def test_class_fishing_rebuilds_one_example_out_of_a_large_batch(digits):
    attack = ClassFishing(target=4, iterations=300)
    for seed in range(9):
        seen, _, batch = planted(attack, digits, size=16, hidden=(64,), activation="sigmoid", seed=seed)
        if int((batch["labels"] == 4).sum()) == 1:
            break
    truth = batch["images"][batch["labels"] == 4]
    others = batch["images"][batch["labels"] != 4]
    found = reconstruct(attack, seen)
    assert psnr(truth, found)[0] > 18
    assert psnr(truth, found)[0] > psnr(others, found).max()


def test_a_softened_bait_is_less_odd_and_still_catches_its_class(digits):
    attack = ClassFishing(target=2, bias=12.0, residue=0.2, multiplier=0.1, iterations=5)
    seen, _, batch = planted(attack, digits, "lenet", size=32, activation="sigmoid")
    norms, wanted = sizes(seen, batch), batch["labels"] == 2
    assert seen.parameters["head.weight"][0].any()
    assert norms[wanted].min() > norms[~wanted].max()
    assert len(reconstruct(attack, seen).fields["images"]) == int(wanted.sum())


def test_class_fishing_refuses_when_nothing_was_caught(digits):
    attack = ClassFishing(target=3, iterations=5)
    seen, _, _ = planted(attack, digits, "lenet", size=8, only=5)
    with pytest.raises(RequirementError, match="took the bait"):
        reconstruct(attack, seen)


def test_feature_fishing_catches_a_few_of_one_class(digits):
    attack = FeatureFishing(target=6, iterations=5)
    caught = []
    for seed in range(6):
        seen, _, batch = planted(attack, digits, size=16, only=6, hidden=(64,), seed=seed, public=900)
        norms = sizes(seen, batch)
        loud = norms > max(0.05 * norms.max(), 1e-9)
        caught.append(int(loud.sum()))
        assert norms[loud].sum() >= 0.9 * norms.sum()
    assert 0.3 < sum(caught) / len(caught) < 4  # one is expected


def test_class_means_are_the_images_of_classes_that_occur_once(digits):
    attack = ClassMeans()
    seen, _, batch = planted(attack, digits, "mlp", size=12, hidden=())
    found = reconstruct(attack, seen)
    for image, label in zip(found.fields["images"], found.fields["labels"]):
        expected = batch["images"][batch["labels"] == label].mean(0)
        torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)
    present = set(batch["labels"].tolist()) - {9}
    assert set(found.fields["labels"].tolist()) == present


def test_class_means_pass_through_hidden_layers_as_far_as_they_fit(digits):
    seen, truth, batch = planted(ClassMeans(), digits, size=4, hidden=(40, 32), seed=3)
    found = reconstruct(ClassMeans(), seen)
    assert "50% of the pixels" in found.notes[0]
    once = torch.stack([(batch["labels"] == label).sum() == 1 for label in batch["labels"]]) & (batch["labels"] != 9)
    assert bool(once.any())
    rebuilt = found.fields["images"].flatten(1)
    share = (rebuilt[:, None] - truth[once].flatten(1)).abs().lt(1e-3).double().mean(2).amax(0)
    assert bool((share >= 0.5).all())


def test_a_shaped_loss_is_the_wanted_class_s(digits):
    attack = Geminio(target=3, iterations=5)
    seen, _, _ = planted(attack, digits, size=32, hidden=(64,), public=900)
    probe = digits.batch(torch.arange(1000, 1200))
    wanted = probe["labels"] == 3
    with torch.no_grad():
        loss = cross_entropy(seen.task.model(probe["images"]), probe["labels"], reduction="none")
    assert loss[wanted].sum() > 0.9 * loss.sum()
    assert sizes(seen, probe)[wanted].sum() > 0.4 * sizes(seen, probe).sum()
    found = reconstruct(attack, seen)
    assert bool((found.fields["labels"] == 3).all())


def test_codes_come_back_exactly_and_pictures_as_well_as_the_decoder_draws(digits):
    attack = ScaleMIA(steps=300)
    seen, truth, _ = planted(attack, digits, "convnet", size=16, hidden=128, width=8, public=800)
    middle = find_middle(seen.task, "train")
    with torch.no_grad(), simulating(seen.task.model, "train"):
        private = codes(seen.task.model, middle, truth)
    read, _ = attack._codes(seen, middle)
    nearest = torch.cdist(private.double(), read).amin(1) / private.double().norm(dim=1)
    assert (nearest < 1e-3).double().mean() > 0.6
    ours = psnr(truth, reconstruct(attack, seen))
    mean = -10 * torch.log10(truth.sub(digits.images.mean(0)).square().flatten(1).mean(1))
    assert ours.median() > mean.median() + 4


@pytest.mark.parametrize(
    ("attack", "reason"),
    [(Imprint(), "normalises every example by its own size"), (ScaleMIA(steps=5), "tokens of every example")],
)
def test_tokens_of_a_vision_transformer_are_no_place_for_bins(digits, attack, reason):
    with pytest.raises(RequirementError, match=reason):
        planted(attack, digits, "vit", size=4)


def test_a_plant_drifts_from_the_honest_model_step_by_step(digits):
    attack = ClassMeans()
    seen, _, _ = planted(attack, digits, size=4, hidden=())
    plant, task = seen.knowledge.plant, seen.task
    honest = {name: torch.ones_like(p) for name, p in task.model.named_parameters()}
    half = plant.drifted(honest, 0.5)
    for name, tensor in plant.state.items():
        torch.testing.assert_close(half.state[name], (tensor + 1) / 2)
    moved = dict(send(task, half).model.named_parameters())
    torch.testing.assert_close(moved["head.bias"], half.state["head.bias"])
    assert plant.drifted(honest, 1.0).state["head.bias"].equal(plant.state["head.bias"])
