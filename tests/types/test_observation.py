from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo.domains import Images
from invertigo.types import (
    Batch,
    CorruptFileError,
    InvalidValueError,
    Knowledge,
    LocalTraining,
    MismatchError,
    Observation,
    Plant,
    Requirement,
    Task,
    Update,
    buffers_of,
    trainable,
)

DOMAIN = Images(shape=(1, 4, 4))


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.Sigmoid(), nn.Linear(5, 3))


def gradients(model: nn.Module, n: int = 4) -> dict[str, torch.Tensor]:
    images, labels = torch.linspace(0, 1, n * 16).view(n, 1, 4, 4), torch.arange(n) % 3
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    return dict(zip(names, torch.autograd.grad(cross_entropy(model(images), labels), parameters)))


def stepped(model: nn.Module, learning_rate: float) -> dict[str, torch.Tensor]:
    """State dict after one plain SGD step, by torch's own optimiser."""
    images, labels = torch.linspace(0, 1, 64).view(4, 1, 4, 4), torch.arange(4) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    optimizer.zero_grad()
    cross_entropy(model(images), labels).backward()
    optimizer.step()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- one gradient -------------------------------------------------------------------------------------------------


def test_gradients_by_name_and_in_order_are_the_same_observation():
    model = network()
    named = gradients(model)
    by_name = Observation.from_gradients(model, cross_entropy, named, domain=DOMAIN)
    in_order = Observation.from_gradients(model, cross_entropy, list(named.values()), domain=DOMAIN)
    for name, tensor in named.items():
        assert torch.equal(by_name.update.tensors[name], tensor)
        assert torch.equal(in_order.update.tensors[name], tensor)


def test_an_observation_does_not_follow_later_training():
    model = network()
    observation = Observation.from_gradients(model, cross_entropy, gradients(model), domain=DOMAIN)
    before = {name: p.clone() for name, p in observation.parameters.items()}
    stepped(model, 0.5)
    assert all(torch.equal(observation.parameters[name], p) for name, p in before.items())


def test_the_wrong_number_of_gradients_is_refused():
    model = network()
    with pytest.raises(MismatchError, match="5 gradient tensors were given, but the model has 6"):
        Observation.from_gradients(model, cross_entropy, list(gradients(model).values())[:5], domain=DOMAIN)


def test_gradients_of_another_model_are_refused():
    other = {name: torch.zeros(7) for name in trainable(network())}
    with pytest.raises(MismatchError, match="does not belong to this model"):
        Observation.from_gradients(network(), cross_entropy, other, domain=DOMAIN)


def test_a_nan_gradient_is_refused():
    model = network()
    damaged = gradients(model)
    damaged["1.bias"][0] = float("nan")
    with pytest.raises(InvalidValueError, match=r"'1\.bias' holds 1 NaN"):
        Observation.from_gradients(model, cross_entropy, damaged, domain=DOMAIN)


def test_frozen_layers_are_no_part_of_the_update():
    model = network()
    model[1].requires_grad_(False)
    observation = Observation.from_gradients(model, cross_entropy, gradients(model), domain=DOMAIN)
    assert not any(name.startswith("1.") for name in observation.parameters)


@pytest.mark.usefixtures("untyped")
def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidValueError, match="'training'"):
        Observation.from_gradients(
            network(), cross_entropy, gradients(network()), domain=DOMAIN, mode="training", num_classes=3
        )


def test_there_is_nowhere_to_put_the_truth():
    """The type boundary of DESIGN.md: no field of an observation or of its knowledge holds the private batch."""
    fields = set(Observation.__dataclass_fields__) | set(Knowledge.__dataclass_fields__)
    assert not fields & {"batch", "truth", "images", "inputs", "data"}


# --- two state dicts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learning_rate", [0.01, 0.5])
def test_one_step_gives_back_the_gradient(learning_rate):
    model = network().double()
    before = state(model)
    images, labels = torch.linspace(0, 1, 64).view(4, 1, 4, 4).double(), torch.arange(4) % 3
    parameters = dict(model.named_parameters())
    expected = dict(
        zip(parameters, torch.autograd.grad(cross_entropy(model(images), labels), list(parameters.values())))
    )
    model.load_state_dict(before)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    cross_entropy(model(images), labels).backward()
    optimizer.step()
    observation = Observation.from_parameters(
        model, cross_entropy, before, state(model), domain=DOMAIN, learning_rate=learning_rate, num_examples=4
    )
    assert observation.update.kind == "gradient"
    for name, gradient in expected.items():
        torch.testing.assert_close(observation.update.tensors[name], gradient, rtol=1e-9, atol=1e-12)


def test_buffers_of_both_state_dicts_are_kept_apart():
    model = network()
    before = state(model)
    after = stepped(model, 0.1)
    observation = Observation.from_parameters(
        model, cross_entropy, before, after, domain=DOMAIN, learning_rate=0.1, num_examples=4
    )
    assert torch.equal(observation.buffers["2.running_mean"], before["2.running_mean"])
    assert observation.update.buffers is not None
    assert torch.equal(observation.update.buffers["2.running_mean"], after["2.running_mean"])
    assert not torch.equal(before["2.running_mean"], after["2.running_mean"])


def test_several_steps_stay_a_difference():
    model = network()
    before = state(model)
    stepped(model, 0.1)
    after = stepped(model, 0.1)
    observation = Observation.from_parameters(
        model, cross_entropy, before, after, domain=DOMAIN, learning_rate=0.1, steps=2, num_examples=4
    )
    assert observation.update.kind == observation.local.sends == "difference"
    assert observation.local.steps(4) == [slice(0, 2), slice(2, 4)]
    name = "1.weight"
    assert torch.equal(observation.update.tensors[name], after[name] - before[name])


def test_several_steps_need_to_know_how_the_examples_were_split():
    model = network()
    before, after = state(model), stepped(model, 0.1)
    with pytest.raises(InvalidValueError, match="multiple of 3; it is 4"):
        Observation.from_parameters(
            model, cross_entropy, before, after, domain=DOMAIN, learning_rate=0.1, steps=3, num_examples=4
        )


def test_equal_state_dicts_are_refused():
    model = network()
    with pytest.raises(MismatchError, match="identical"):
        Observation.from_parameters(
            model, cross_entropy, state(model), state(model), domain=DOMAIN, learning_rate=0.1, num_examples=1
        )


@pytest.mark.parametrize(("learning_rate", "steps"), [(0.0, 1), (-0.1, 1), (0.1, 0)])
def test_a_meaningless_recipe_is_refused(learning_rate, steps):
    model = network()
    before, after = state(model), stepped(model, 0.1)
    with pytest.raises(InvalidValueError, match="must both be positive"):
        Observation.from_parameters(
            model, cross_entropy, before, after, domain=DOMAIN,
            learning_rate=learning_rate, steps=steps, num_examples=4,
        )  # fmt: skip


@pytest.mark.parametrize("which", ["before", "after"])
def test_an_incomplete_state_dict_is_refused_by_its_name(which):
    model = network()
    states = {"before": state(model), "after": stepped(model, 0.1)}
    del states[which]["4.bias"]
    with pytest.raises(MismatchError, match=rf"state dict '{which}'.*lacks '4\.bias'"):
        Observation.from_parameters(
            model, cross_entropy, states["before"], states["after"], domain=DOMAIN, learning_rate=0.1
        )


def test_a_state_dict_of_another_architecture_is_refused():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Sigmoid(), nn.Linear(6, 3))
    with pytest.raises(MismatchError, match=r"\(6, 16\).*\(5, 16\)"):
        Observation.from_parameters(
            network(), cross_entropy, state(wide), stepped(wide, 0.1), domain=DOMAIN, learning_rate=0.1
        )


# --- files --------------------------------------------------------------------------------------------------------


def test_an_update_survives_a_file(tmp_path):
    model = network()
    observation = Observation.from_gradients(model, cross_entropy, gradients(model), domain=DOMAIN)
    observation.save(tmp_path / "update.safetensors")
    again = Observation.load(tmp_path / "update.safetensors", model, cross_entropy, domain=DOMAIN)
    for name, tensor in observation.update.tensors.items():
        assert torch.equal(again.update.tensors[name], tensor)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorruptFileError, match=r"no file .*nowhere\.safetensors"):
        Observation.load(tmp_path / "nowhere.safetensors", network(), cross_entropy, domain=DOMAIN)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "update.safetensors"
    save_file(gradients(network()), str(path))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CorruptFileError, match="cannot be read as safetensors"):
        Observation.load(path, network(), cross_entropy, domain=DOMAIN)


def test_a_folder_is_no_update(tmp_path):
    with pytest.raises(CorruptFileError):
        Observation.load(tmp_path, network(), cross_entropy, domain=DOMAIN)


class Trap:
    """Runs code when unpickled; the test sees whether it did."""

    sprung = False

    @staticmethod
    def spring() -> dict:
        Trap.sprung = True
        return {}

    def __reduce__(self):
        return (Trap.spring, ())


def test_a_pickle_is_refused_and_never_run(tmp_path):
    path = tmp_path / "update.pt"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CorruptFileError, match="a pickle can run code"):
        Observation.load(path, network(), cross_entropy, domain=DOMAIN)
    assert not Trap.sprung


# --- what the adversary knows -------------------------------------------------------------------------------------


def observe(knowledge: Knowledge, num_classes: int | None = 3) -> Observation:
    model = network()
    return Observation.from_gradients(
        model, cross_entropy, gradients(model), domain=DOMAIN, num_classes=num_classes, knowledge=knowledge
    )


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_refused(label):
    with pytest.raises(InvalidValueError, match=rf"Label {label} is outside the model's 3 classes \(0\.\.2\)"):
        observe(Knowledge(labels=torch.tensor([0, label])))


def test_labels_and_count_must_agree():
    with pytest.raises(MismatchError, match="2 labels were given for 3 examples"):
        Knowledge(num_examples=3, labels=torch.tensor([0, 1]))


@pytest.mark.parametrize("count", [0, -2])
def test_an_update_comes_from_at_least_one_example(count):
    with pytest.raises(InvalidValueError, match=f"num_examples is {count}"):
        Knowledge(num_examples=count)


def test_labels_give_the_batch_size_away():
    observation = observe(Knowledge(labels=torch.tensor([0, 1])))
    assert observation.num_examples == 2
    assert observation.unmet(frozenset({Requirement.BATCH_SIZE, Requirement.LABELS})) == []


@pytest.mark.parametrize("requirement", [r for r in Requirement if r is not Requirement.SINGLE_GRADIENT])
def test_an_adversary_who_knows_nothing_meets_no_requirement(requirement):
    assert observe(Knowledge()).unmet(frozenset({requirement})) == [requirement]


def test_each_requirement_is_met_by_what_it_names():
    known = Knowledge(
        labels=torch.tensor([0]),
        batch_statistics={"2": (torch.zeros(5), torch.ones(5))},
        public=Batch({"images": torch.rand(2, 1, 4, 4), "labels": torch.tensor([0, 1])}),
        fields={"present": torch.ones(1, 3, dtype=torch.bool)},
        plant=Plant("test", {"weight": torch.zeros(1)}),
    )
    assert observe(known).unmet(frozenset(Requirement)) == []


def test_a_difference_is_no_single_gradient():
    model = network()
    update = Update(gradients(model), "difference")
    task = Task(model, cross_entropy, DOMAIN)
    local = LocalTraining(sends="difference", epochs=2)
    observation = Observation(task, trainable(model), buffers_of(model), update, local)
    assert observation.unmet(frozenset({Requirement.SINGLE_GRADIENT})) == [Requirement.SINGLE_GRADIENT]


def test_the_recipe_and_the_update_must_tell_the_same_story():
    model = network()
    update = Update(gradients(model), "difference")
    with pytest.raises(MismatchError, match="The update is a difference, but the client is said to send a gradient"):
        Observation(Task(model, cross_entropy, DOMAIN), trainable(model), buffers_of(model), update)
