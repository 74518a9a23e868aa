"""Local training as people write it with PyTorch's own optimizers, and as the client and the attackers repeat it."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from invertigo.domains import Images
from invertigo.federation import functional_update, replay, simulating, train_locally
from invertigo.types import (
    Batch,
    InvalidValueError,
    LocalTraining,
    MismatchError,
    Observation,
    ParameterGroup,
    Task,
    Update,
    buffers_of,
    trainable,
)

SHAPE = (1, 4, 4)
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def data(n):
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, *SHAPE, generator=g, dtype=torch.float64), torch.arange(n) % 3


def loop(model, x, y, sizes, epochs, local):
    """The loop as a user would write it."""
    start = [p.detach().clone() for p in model.parameters()]
    mine = {"lr": local.learning_rate, "weight_decay": local.weight_decay, "maximize": local.maximize}
    if local.optimizer == "sgd":
        mine |= {"momentum": local.momentum, "dampening": local.dampening, "nesterov": local.nesterov}
    else:
        mine |= {"betas": local.betas, "eps": local.eps}
    optimizer = OPTIMIZERS[local.optimizer](model.parameters(), **mine)
    number = 0
    for _ in range(epochs):
        for xs, ys in zip(x.split(sizes), y.split(sizes)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(xs), ys)
            loss = loss + local.l2 / 2 * sum(p.square().sum() for p in model.parameters())
            loss = loss + local.proximal / 2 * sum((p - s).square().sum() for p, s in zip(model.parameters(), start))
            loss.backward()
            if local.clip_value is not None:
                nn.utils.clip_grad_value_(model.parameters(), local.clip_value)
            if local.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), local.clip_norm)
            if local.learning_rates:
                optimizer.param_groups[0]["lr"] = local.learning_rates[number]
            optimizer.step()
            number += 1
    return dict(zip(trainable(model), (p.detach() - s for p, s in zip(model.parameters(), start))))


def near(found, expected):
    miss = sum((found[k] - expected[k]).square().sum() for k in expected) ** 0.5
    return miss <= 1e-10 * sum(t.square().sum() for t in expected.values()) ** 0.5


def simulated(model, local, x, y, transformable=False):
    task = Task(model, F.cross_entropy, Images(SHAPE), 3)
    with simulating(model, local.mode):
        simulate = functional_update(
            task, trainable(model), buffers_of(model), local, len(x), transformable=transformable
        )
        return simulate({"images": x, "labels": y}).update


@st.composite
def recipes(draw):
    optimizer = draw(st.sampled_from(["sgd", "adam", "adamw"]))
    rates = st.sampled_from([0.003, 0.02, 0.1])
    sizes = draw(st.sampled_from([(5,), (2, 2, 1), (3, 2), (1, 4), (1, 1, 1, 1, 1)]))
    epochs = draw(st.integers(1, 3))
    recipe = {"optimizer": optimizer, "learning_rate": draw(rates), "batch_sizes": sizes, "epochs": epochs}
    if optimizer == "sgd":
        recipe["momentum"] = draw(st.sampled_from([0.0, 0.5, 0.9]))
        recipe["nesterov"] = recipe["momentum"] > 0 and draw(st.booleans())
        recipe["dampening"] = 0.0 if recipe["nesterov"] else draw(st.sampled_from([0.0, 0.3]))
    else:
        recipe["betas"] = draw(st.sampled_from([(0.9, 0.999), (0.5, 0.7), (0.0, 0.9)]))
        recipe["eps"] = draw(st.sampled_from([1e-8, 1e-3]))
    recipe["maximize"] = draw(st.booleans())
    recipe["weight_decay"] = draw(st.sampled_from([0.0, 0.01, 0.3]))
    recipe["l2"] = draw(st.sampled_from([0.0, 0.1]))
    recipe["proximal"] = draw(st.sampled_from([0.0, 0.5]))
    recipe["clip_norm"] = draw(st.sampled_from([None, 0.2, 100.0]))
    recipe["clip_value"] = draw(st.sampled_from([None, 0.02]))
    if draw(st.booleans()):
        recipe["learning_rates"] = tuple(draw(rates) for _ in range(epochs * len(sizes)))
    return LocalTraining(sends="difference", **recipe)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(recipes())
def test_client_and_simulation_are_pytorchs_own_loop(local):
    model, (x, y) = network(), data(5)
    expected = loop(copy.deepcopy(model), x, y, list(local.batch_sizes), local.epochs, local)
    sent = train_locally(Task(model, F.cross_entropy, Images(SHAPE), 3), Batch({"images": x, "labels": y}), local)
    assert near(sent.tensors, expected)
    assert near(simulated(model, local, x, y), expected)
    assert near(simulated(model, local, x, y, transformable=True), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_parameter_groups_have_their_own_settings(optimizer):
    model, (x, y) = network(), data(4)
    twin = copy.deepcopy(model)
    groups = [
        {"params": [twin[1].weight], "lr": 0.01, "weight_decay": 0.2},
        {"params": [twin[1].bias, *twin[3].parameters()]},
    ]
    kind = OPTIMIZERS[optimizer](groups, lr=0.1, weight_decay=0.0)
    for part in (slice(0, 2), slice(2, 4)):
        kind.zero_grad()
        F.cross_entropy(twin(x[part]), y[part]).backward()
        kind.step()
    expected = {k: p.detach() - trainable(model)[k] for k, p in twin.named_parameters()}
    group = ParameterGroup(names=("1.weight",), learning_rate=0.01, weight_decay=0.2)
    local = LocalTraining(
        sends="difference", optimizer=optimizer, learning_rate=0.1, batch_size=2, groups=(group,), weight_decay=0.0
    )
    sent = train_locally(Task(model, F.cross_entropy, Images(SHAPE), 3), Batch({"images": x, "labels": y}), local)
    assert near(sent.tensors, expected)
    assert near(simulated(model, local, x, y), expected)
    plain = dataclasses.replace(local, groups=())
    assert not near(simulated(model, plain, x, y), expected)


@pytest.mark.parametrize("recipe", [{"optimizer": "adam"}, {"momentum": 0.9, "nesterov": True, "clip_norm": 0.3}])
def test_derivative_with_respect_to_the_data_is_that_of_finite_differences(recipe):
    model, (x, y) = network(), data(3)
    local = LocalTraining(sends="difference", learning_rate=0.05, batch_size=1, eps=1e-2, **recipe)
    weights = {
        k: torch.randn(p.shape, generator=torch.Generator().manual_seed(2)).double()
        for k, p in trainable(model).items()
    }

    def value(images):
        update = simulated(model, local, images, y)
        return sum((w * update[k]).sum() for k, w in weights.items())

    assert torch.autograd.gradcheck(value, [x.requires_grad_()])


def test_a_gradient_that_is_zero_has_a_derivative_under_adam():
    model = network()
    with torch.no_grad():
        model[1].weight.zero_()
        model[3].weight.zero_()
    x, y = data(2)
    update = simulated(model, LocalTraining(sends="difference", optimizer="adam"), x.requires_grad_(), y)
    (slope,) = torch.autograd.grad(sum(u.sum() for u in update.values()), [x])
    assert torch.isfinite(slope).all()


def test_one_gradient_accumulated_over_uneven_parts():
    model, (x, y) = network(), data(4)
    twin = copy.deepcopy(model)
    for part, weight in ((slice(0, 3), 0.5), (slice(3, 4), 0.5)):
        (weight * F.cross_entropy(twin(x[part]), y[part])).backward()
    local = LocalTraining(batch_sizes=(3, 1), weights=(0.5, 0.5))
    expected = {k: p.grad for k, p in twin.named_parameters()}
    sent = train_locally(Task(model, F.cross_entropy, Images(SHAPE), 3), Batch({"images": x, "labels": y}), local)
    assert near(sent.tensors, expected)
    assert near(simulated(model, local, x, y), expected)
    assert not near(simulated(model, LocalTraining(), x, y), expected)


def test_adam_declared_as_sgd_is_noticed():
    model, (x, y) = network(), data(5)
    truly = LocalTraining(sends="difference", optimizer="adam", batch_size=2, learning_rate=0.01)
    moved = loop(copy.deepcopy(model), x, y, 2, 1, truly)
    task, truth = Task(model, F.cross_entropy, Images(SHAPE), 3), Batch({"images": x, "labels": y})

    def judged(local):
        return replay(Observation(task, trainable(model), {}, Update(moved, "difference"), local), truth)

    assert judged(truly).status == "exact"
    wrong = judged(dataclasses.replace(truly, optimizer="sgd"))
    assert wrong.status == "differs"
    assert "optimizer is Adam" in wrong.cause
    moved = loop(copy.deepcopy(model), x, y, 2, 1, dataclasses.replace(truly, betas=(0.8, 0.99), weight_decay=0.01))
    assert "looks like that of Adam" in judged(dataclasses.replace(truly, optimizer="sgd")).cause


@pytest.mark.parametrize(
    ("recipe", "match"),
    [
        ({"optimizer": "adam", "momentum": 0.9}, "belong to SGD"),
        ({"nesterov": True}, "momentum > 0"),
        ({"weight_decay": -1.0}, "negative"),
        ({"clip_norm": 0.0}, "positive"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"batch_sizes": (2, 0)}, "positive"),
        ({"batch_sizes": (2, 2), "weights": (1.0,)}, "one factor for each"),
        ({"sends": "difference", "batch_sizes": (2, 2), "learning_rates": (0.1,)}, r"local step \(2\)"),
        ({"groups": (ParameterGroup(names=("a",)), ParameterGroup(names=("a",)))}, "two of"),
    ],
)
def test_recipes_that_make_no_sense(recipe, match):
    with pytest.raises(InvalidValueError, match=match):
        LocalTraining(**recipe)


def test_recipes_that_do_not_fit_the_batch_or_the_model():
    model, (x, y) = network(), data(5)
    with pytest.raises(InvalidValueError, match="4 examples, but the batch holds 5"):
        simulated(model, LocalTraining(sends="difference", batch_sizes=(2, 2)), x, y)
    with pytest.raises(MismatchError, match="no trainable parameter"):
        simulated(model, LocalTraining(sends="difference", groups=(ParameterGroup(names=("9.weight",)),)), x, y)
    with pytest.raises(MismatchError, match="holds 2 rates"):
        simulated(model, LocalTraining(sends="difference", learning_rates=(0.1, 0.2)), x, y)
