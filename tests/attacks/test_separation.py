"""Batches come apart by rank and silence alone: no loss, label, scale or neuron with one example is assumed."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo import data
from invertigo.attacks import reconstruct
from invertigo.attacks.exact.factors import factor
from invertigo.domains import Images
from invertigo.federation import observe
from invertigo.types import Batch, Knowledge, LocalTraining, Observation, RequirementError, Task, Update

SHAPE = (1, 8, 8)
DIGITS = data.load("digits")


def private(count, dtype=torch.float32, seed=0):
    chosen = torch.randperm(len(DIGITS.images), generator=torch.Generator().manual_seed(seed))[:count]
    return Batch({"images": DIGITS.images[chosen].to(dtype), "labels": DIGITS.labels[chosen]})


def network(hidden=400, activation=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), activation(), nn.Linear(hidden, 10))


def see(model, batch, loss=cross_entropy, local=None, scale=1.0):
    seen = observe(Task(model, loss, Images(SHAPE), 10), batch, local or LocalTraining(), level=1)
    tensors = {name: scale * tensor for name, tensor in seen.update.tensors.items()}
    update = Update(tensors, seen.update.kind)
    known = Knowledge(num_examples=len(batch))
    return Observation(seen.task, seen.parameters, seen.buffers, update, seen.local, known)


def exact(batch, rebuilt, within=1e-2):
    """How many true images were rebuilt; every rebuilt one must be true, and none twice."""
    distance, nearest = torch.cdist(rebuilt.fields["images"].flatten(1), batch["images"].flatten(1)).min(1)
    assert float(distance.max()) < within
    assert len(set(nearest.tolist())) == len(nearest)
    return len(nearest)


def oracle_peels(model, batch):
    """Examples that peeling could reach if it made no mistake: one after another alone on some neuron."""
    on = model[1](model[0](batch["images"])) > 0
    alive = torch.ones(len(on), dtype=torch.bool)
    while bool(alive.any()):
        alone = on[:, on[alive].sum(0) == 1] & alive[:, None]
        if not bool(alone.any()):
            break
        alive &= ~alone.any(1)
    return int((~alive).sum())


def test_a_batch_that_no_peeling_could_even_begin_comes_apart_in_single_precision():
    model = network()
    pixels = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
    batch = Batch({"images": pixels, "labels": torch.arange(16) % 10})
    assert oracle_peels(model, batch) == 0  # no neuron has one example to itself
    task = Task(model, cross_entropy, Images(SHAPE, low=-1.0, high=1.0), 10)
    assert exact(batch, reconstruct(observe(task, batch, LocalTraining(), level=1), "linear_layer")) == 16


@pytest.mark.parametrize("scale", [1e-3, 137.0])
def test_the_scale_is_not_assumed(scale):
    model, batch = network(), private(12, seed=1)
    assert exact(batch, reconstruct(see(model, batch, scale=scale), "linear_layer")) == 12


def test_the_loss_is_not_assumed():
    batch = private(12, seed=2)

    def told(scores, labels):
        return cross_entropy(scores, labels, weight=torch.arange(1.0, 11.0), label_smoothing=0.2) * 3

    def true(scores, labels):
        return (scores.sin() * torch.arange(10.0)).sum() / len(scores) + cross_entropy(scores, labels)

    seen = see(network(), batch, loss=true)
    blind = Task(seen.task.model, told, seen.task.domain, 10)
    wrong = Observation(blind, seen.parameters, seen.buffers, seen.update, seen.local, seen.knowledge)
    assert exact(batch, reconstruct(wrong, "linear_layer")) == 12


def test_several_local_steps_on_batches():
    batch, local = private(12, seed=3), LocalTraining(sends="difference", learning_rate=0.02, epochs=3, batch_size=4)
    assert exact(batch, reconstruct(see(network(), batch, local=local), "linear_layer")) == 12


def test_refusals_state_counts():
    batch = private(6, seed=4)
    with pytest.raises(RequirementError, match=r"Of 400 neurons of '1', \d+ show an image"):
        reconstruct(see(network(activation=nn.Sigmoid), batch), "linear_layer")


def test_rank_and_rounding_are_measured_on_the_update_itself():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 7, generator=generator, dtype=torch.float64) for n in (90, 50))
    noise = 1e-6 * torch.randn(90, 50, generator=generator, dtype=torch.float64)
    found = factor(left @ right.T + noise, 1e-7)
    assert found is not None
    assert found.rank == 7
    assert 0.8e-6 < found.noise < 1.25e-6
    assert factor(noise, 1e-7) is None


def test_rows_of_a_table_are_read_by_a_bare_linear_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 200), nn.ReLU(), nn.Linear(200, 3), nn.Flatten(1))
    rows = torch.rand(8, 1, 1, 30, generator=torch.Generator().manual_seed(1))
    batch = Batch({"images": rows, "labels": torch.arange(8) % 3})
    seen = observe(Task(model, cross_entropy, Images((1, 1, 30)), 3), batch, LocalTraining(), level=1)
    assert exact(batch, reconstruct(seen, "linear_layer")) == 8
