"""The first linear layer gives images away exactly, or the attack says why it does not."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invertigo import data, defenses, models
from invertigo.attacks import reconstruct, registry
from invertigo.attacks.exact import find_first_linear
from invertigo.domains import Images
from invertigo.federation import observe
from invertigo.types import Attack, Batch, ConfigurationError, LocalTraining, RequirementError, Task, UnknownNameError

SHAPE, CLASSES = (1, 8, 8), 10
DIGITS = data.load("digits")


def mlp(activation="relu", dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(0)
    options = {"hidden": (512,)} | options
    model = models.build(
        "mlp", input_shape=SHAPE, num_classes=CLASSES, generator=generator, activation=activation, **options
    )
    return model.to(dtype)


def private(n, dtype=torch.float64, seed=0) -> Batch:
    chosen = torch.randperm(len(DIGITS.images), generator=torch.Generator().manual_seed(seed))[:n]
    return Batch({"images": DIGITS.images[chosen].to(dtype), "labels": DIGITS.labels[chosen]})


def see(model, batch, local=None, *, level=1, domain=None):
    return observe(
        Task(model, F.cross_entropy, domain or Images(SHAPE), CLASSES), batch, local or LocalTraining(), level=level
    )


def db(batch, reconstruction, domain=None):
    return (domain or Images(SHAPE)).score(batch, reconstruction.fields).per_example["psnr"]


@pytest.mark.parametrize("activation", ["relu", "gelu", "sigmoid", "tanh"])
def test_one_example_is_exact_in_double_precision(activation):
    batch = private(1)
    rebuilt = reconstruct(see(mlp(activation), batch), "linear_layer")
    assert db(batch, rebuilt).min() >= 100
    assert rebuilt.objective < 1e-12
    assert rebuilt.finished
    assert rebuilt.fields["labels"].tolist() == batch["labels"].tolist()
    assert rebuilt.labels_inferred


@pytest.mark.parametrize("size", [2, 4, 8])
def test_relu_batch_is_peeled_apart_exactly(size):
    batch = private(size, seed=size)
    rebuilt = reconstruct(see(mlp(), batch), "linear_layer")
    assert len(rebuilt.fields["images"]) == size
    assert db(batch, rebuilt).min() >= 100
    assert sorted(rebuilt.fields["labels"].tolist()) == sorted(batch["labels"].tolist())
    assert rebuilt.objective < 1e-10


def test_classes_are_counted_on_the_model_when_nobody_says_how_many():
    batch = private(4, seed=4)
    seen = see(mlp(), batch)
    seen = dataclasses.replace(seen, task=dataclasses.replace(seen.task, num_classes=None))
    assert db(batch, reconstruct(seen, "linear_layer")).min() >= 100


@pytest.mark.parametrize("size", [1, 4, 8])
def test_single_precision(size):
    batch = private(size, torch.float32, seed=size)
    rebuilt = reconstruct(see(mlp(dtype=torch.float32), batch), "linear_layer")
    assert db(batch, rebuilt).min() >= 80
    assert rebuilt.fields["images"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["gelu", "sigmoid"])
@pytest.mark.parametrize("size", [2, 4])
def test_mixtures_are_refused_rather_than_returned(activation, size, dtype):
    with pytest.raises(RequirementError, match="each mixes several"):
        reconstruct(see(mlp(activation, dtype), private(size, dtype)), "linear_layer")


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("hidden", [8, 16, 32])
def test_whatever_is_returned_is_right(classes, hidden):
    """Few neurons: some examples cannot be separated. Those that are returned must still be exact."""
    for seed in range(3):
        batch = private(4, seed=seed)
        batch = Batch({"images": batch["images"], "labels": batch["labels"] % classes})
        task = Task(mlp(hidden=(hidden,)), F.cross_entropy, Images(SHAPE), CLASSES)
        try:
            rebuilt = reconstruct(observe(task, batch, LocalTraining(), level=1), "linear_layer")
        except RequirementError:
            continue
        nearest = torch.cdist(rebuilt.fields["images"].flatten(1), batch["images"].flatten(1)).min(1).values
        assert nearest.max() < 1e-6
        assert len(nearest) <= 4
        assert (len(nearest) == 4) == (not any("of 4 examples" in note for note in rebuilt.notes))


def test_unknown_batch_size():
    batch = private(4, seed=3)
    seen = see(mlp(), batch)
    blind = type(seen)(seen.task, seen.parameters, seen.buffers, seen.update, seen.local)
    rebuilt = reconstruct(blind, "linear_layer")
    assert db(batch, rebuilt).min() >= 100
    assert any("estimated as 4" in note for note in rebuilt.notes)


def test_duplicates_are_found_as_often_as_they_occur():
    one = private(2, seed=2)
    batch = Batch({k: torch.cat([v, v[:1]]) for k, v in one.fields.items()})
    rebuilt = reconstruct(see(mlp(), batch), "linear_layer")
    assert len(rebuilt.fields["images"]) == 3
    assert db(batch, rebuilt).min() >= 100


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_several_local_steps_on_one_example(momentum):
    batch = private(1)
    local = LocalTraining(sends="difference", epochs=5, learning_rate=0.1, momentum=momentum)
    assert db(batch, reconstruct(see(mlp(), batch, local), "linear_layer")).min() >= 100


def test_one_local_step_on_a_batch():
    batch = private(4, seed=4)
    local = LocalTraining(sends="difference", learning_rate=0.1)
    assert db(batch, reconstruct(see(mlp(), batch, local), "linear_layer")).min() >= 90


def test_dropout_after_the_layer():
    batch = private(4, seed=4)
    rebuilt = reconstruct(see(mlp(dropout=0.2), batch), "linear_layer")
    found = torch.cdist(rebuilt.fields["images"].flatten(1), batch["images"].flatten(1)).min(1).values
    assert found.max() < 1e-6
    assert any("without assuming the loss" in note for note in rebuilt.notes)


def test_batchnorm_behind_the_layer_hides_the_batch():
    with pytest.raises(RequirementError):
        reconstruct(see(mlp(batch_norm=True), private(4)), "linear_layer")


def test_normalised_images_and_a_model_that_normalises_itself():
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            return self.inner((x - 0.3) / 0.7)

    domain = Images(SHAPE, mean=(0.2,), std=(0.5,))
    raw = private(3, seed=7)
    batch = Batch({"images": domain.from_pixels(raw["images"]), "labels": raw["labels"]})
    rebuilt = reconstruct(see(Normalising(), batch, domain=domain), "linear_layer")
    assert db(batch, rebuilt, domain).min() >= 100


@pytest.mark.parametrize("name", ["convnet", "lenet", "vit"])
def test_other_first_layers_are_named(name):
    model = models.build(name, input_shape=SHAPE, num_classes=CLASSES, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RequirementError, match="first l"):
        reconstruct(see(model, private(2, torch.float32)), "linear_layer")


def test_pooled_and_shuffled_inputs_are_not_taken_for_pixels():
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 8))
    shuffled = nn.Sequential(nn.PixelUnshuffle(2), nn.Flatten(), nn.Linear(64, 8))
    for model in (pooled, shuffled):
        with pytest.raises(RequirementError, match="reads"):
            find_first_linear(model, Images(SHAPE))


def test_layer_without_bias_is_explained():
    with pytest.raises(RequirementError, match="unknown factor"):
        reconstruct(see(mlp(bias=False), private(1)), "linear_layer")


def test_registry_and_the_one_call():
    assert isinstance(registry["linear_layer"](), Attack)
    with pytest.raises(UnknownNameError, match="linear_layer"):
        reconstruct(see(mlp(), private(1)), "linear_layr")
    with pytest.raises(ConfigurationError, match=r"slck.*Did you mean 'slack'"):
        reconstruct(see(mlp(), private(1)), "linear_layer", slck=1)
    with pytest.raises(ConfigurationError, match="as an object"):
        reconstruct(see(mlp(), private(1)), registry["linear_layer"](), slack=1)


@pytest.mark.parametrize("name", ["clip", "per_example_clip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clipping_hides_no_image(name, dtype):
    """Lengths no longer fit what was simulated, of the batch or of each example; directions still prove each image."""
    batch = private(4, dtype, seed=4)
    clean = reconstruct(see(mlp(dtype=dtype), batch), "linear_layer")
    task = Task(mlp(dtype=dtype), F.cross_entropy, Images(SHAPE), CLASSES)
    defense = defenses.make(name, norm=0.3)
    found = reconstruct(observe(task, batch, LocalTraining(), level=1, defense=defense), "linear_layer")
    assert len(found.fields["images"]) == len(clean.fields["images"]) == 4
    assert db(batch, found).min() >= 60
    assert any("up to a factor" in note for note in found.notes)
    assert not any("up to a factor" in note for note in clean.notes)


def test_noise_is_no_scale():
    task = Task(mlp(), F.cross_entropy, Images(SHAPE), CLASSES)
    noise, secret = defenses.GaussianNoise(std=1e-3), torch.Generator().manual_seed(0)
    seen = observe(task, private(4), LocalTraining(), level=1, defense=noise, secret=secret)
    with pytest.raises(RequirementError):
        reconstruct(seen, "linear_layer")
