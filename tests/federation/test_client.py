"""The client trains as PyTorch does, and leaves the user's objects alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invertigo.domains import Images
from invertigo.federation import train_locally
from invertigo.federation.functional import functional_update, simulating
from invertigo.types import Batch, InvalidValueError, LocalTraining, MismatchError, Task, buffers_of, trainable


def network(*, norm=True, dropout=0.0, classes=5) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 36, classes)).double()


def task_of(model, **kwargs) -> Task:
    return Task(model, F.cross_entropy, Images((3, 8, 8)), **kwargs)


def some_batch(n=6, classes=5) -> Batch:
    g = torch.Generator().manual_seed(1)
    return Batch(
        {
            "images": torch.rand(n, 3, 8, 8, generator=g, dtype=torch.float64),
            "labels": torch.randint(0, classes, (n,), generator=g),
        }
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_gradient_is_the_one_pytorch_computes(mode):
    model, batch = network(), some_batch()
    update = train_locally(task_of(model), batch, LocalTraining(mode=mode, shares_buffers=True))
    twin = copy.deepcopy(model).train(mode == "train")
    F.cross_entropy(twin(batch["images"]), batch["labels"]).backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(update.tensors[name], parameter.grad, rtol=0, atol=0)
    for name, buffer in twin.named_buffers():
        assert torch.equal(update.buffers[name], buffer)
    moved = not torch.equal(update.buffers["1.running_mean"], model[1].running_mean)
    assert moved == (mode == "train")


def test_difference_is_a_plain_sgd_loop():
    model, batch = network(), some_batch(5)
    local = LocalTraining(sends="difference", learning_rate=0.05, momentum=0.9, epochs=2, batch_size=2)
    update = train_locally(task_of(model), batch, local)
    twin = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
            optimizer.zero_grad()
            F.cross_entropy(twin(batch["images"][part]), batch["labels"][part]).backward()
            optimizer.step()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(update.tensors[name], parameter.detach() - trainable(model)[name], rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_attackers_simulation_agrees_with_the_client(mode):
    model, batch = network(), some_batch(4)
    local = LocalTraining(mode=mode, sends="difference", learning_rate=0.05, momentum=0.5, epochs=2, batch_size=2)
    sent = train_locally(task_of(model), batch, local)
    with simulating(model, mode):
        simulate = functional_update(task_of(model), trainable(model), buffers_of(model), local, 4)
        simulated = simulate(batch.fields).update
    if mode == "eval":
        for name, tensor in simulated.items():
            torch.testing.assert_close(tensor, sent.tensors[name])
    else:  # running statistics do not enter a step in training mode, so the steps agree too
        torch.testing.assert_close(simulated["5.weight"], sent.tensors["5.weight"])


def test_model_gradients_modes_buffers_and_random_state_stay():
    model = network(dropout=0.5)
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    state = torch.get_rng_state()
    train_locally(task_of(model), some_batch(), LocalTraining(), generator=torch.Generator().manual_seed(3))
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dropout_is_drawn_from_the_generator():
    task, batch = task_of(network(norm=False, dropout=0.5)), some_batch()

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return train_locally(task, batch, LocalTraining(), generator=generator).tensors["5.weight"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_unused_parameters_get_zeros_and_frozen_ones_are_not_sent():
    model = network(norm=False)
    model.register_parameter("spare", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    model[0].weight.requires_grad_(False)
    for local in (LocalTraining(), LocalTraining(sends="difference")):
        tensors = train_locally(task_of(model), some_batch(), local).tensors
        assert torch.equal(tensors["spare"], torch.zeros(3, dtype=torch.float64))
        assert "0.weight" not in tensors


def test_step_loss_of_the_users_own():
    model, batch = network(norm=False), some_batch()

    def step_loss(call, fields):
        return (call(fields["images"]) ** 2).mean()

    update = train_locally(task_of(model, step_loss=step_loss), batch, LocalTraining())
    model(batch["images"]).square().mean().backward()
    torch.testing.assert_close(update.tensors["5.bias"], model[5].bias.grad)


@pytest.mark.parametrize("num_classes", [5, None])
def test_label_outside_the_classes_is_named(num_classes):
    batch = Batch({"images": some_batch()["images"], "labels": torch.tensor([0, 1, 2, 3, 4, 7])})
    with pytest.raises(InvalidValueError, match=r"Label 7 is outside the model's 5 classes \(0\.\.4\)"):
        train_locally(task_of(network(), num_classes=num_classes), batch, LocalTraining())


def test_loss_that_is_not_finite_is_explained():
    model = network(norm=False)
    with torch.no_grad():
        model[5].bias.fill_(float("inf"))
    with pytest.raises(InvalidValueError, match="loss is nan"):
        train_locally(task_of(model), some_batch(), LocalTraining())


def test_batchnorm_over_a_single_value_is_explained():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4))
    with pytest.raises(InvalidValueError, match="at least two examples"):
        train_locally(task_of(model), some_batch(1, 4), LocalTraining())


def test_images_that_the_model_cannot_read_are_explained():
    batch = Batch({"images": torch.rand(2, 3, 9, 9), "labels": torch.tensor([0, 1])})
    with pytest.raises(MismatchError, match=r"\(2, 3, 9, 9\)"):
        train_locally(task_of(network()), batch, LocalTraining())


def test_frozen_model_has_nothing_to_send():
    with pytest.raises(InvalidValueError, match="no trainable parameters"):
        train_locally(task_of(network().requires_grad_(False)), some_batch(), LocalTraining())
