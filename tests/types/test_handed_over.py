"""Updates as frameworks hand them over; each expected gradient is plain autograd's."""

import numpy as np
import pytest
import torch
from torch import nn

from invertigo import Images, Knowledge, Observation
from invertigo.domains import Graphs
from invertigo.types import InvalidValueError, MismatchError, Task, bare, renamed, rounding

SHAPE = (1, 4, 4)
LOSS = nn.CrossEntropyLoss()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.unused, self.last = nn.Linear(16, 8), nn.Linear(3, 3), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(torch.relu(self.first(x.flatten(1))))


@pytest.fixture
def model():
    return Net().eval()


@pytest.fixture
def raw(model):
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    loss = LOSS(model(x), torch.tensor([2]))
    return dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
    )


def see(model, gradients):
    return Observation.from_gradients(
        model, LOSS, gradients, domain=Images(SHAPE), mode="eval", num_classes=4, knowledge=Knowledge(num_examples=1)
    )


FORMS = {
    "a list with None": lambda raw: list(raw.values()),
    "a dictionary with None": lambda raw: raw,
    "without what is not used": lambda raw: {n: g for n, g in raw.items() if g is not None},
    "arrays": lambda raw: {n: None if g is None else g.numpy() for n, g in raw.items()},
    "a list of arrays": lambda raw: [np.zeros(1) if g is None else g.numpy() for g in raw.values()],
    "prefixes": lambda raw: {f"module._orig_mod.{n}": g for n, g in raw.items()},
    "other prefixes": lambda raw: {f"_module.{n}": g for n, g in raw.items()},
}


@pytest.mark.parametrize("form", [name for name in FORMS if name != "a list of arrays"])
def test_every_form_is_the_same_update(model, raw, form):
    seen = see(model, FORMS[form](raw)).update.tensors
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if raw[name] is None else raw[name]
        assert torch.equal(seen[name], expected)


def test_what_is_used_must_be_there(model, raw):
    with pytest.raises(MismatchError, match=r"lacks 'last\.bias'"):
        see(model, {n: g for n, g in raw.items() if n != "last.bias"})
    with pytest.raises(MismatchError, match="None for those the loss does not reach"):
        see(model, list(raw.values())[:3])
    with pytest.raises(MismatchError, match="does not know"):
        see(model, {**raw, "other.weight": torch.zeros(1)})
    with pytest.raises(InvalidValueError, match="cannot be read as numbers"):
        see(model, {**raw, "first.bias": "gradient"})
    with pytest.raises(MismatchError, match="empty"):
        see(model, dict.fromkeys(raw))


def test_half_precision_is_widened_and_still_seen(model, raw):
    seen = see(model, {n: None if g is None else g.half() for n, g in raw.items()}).update.tensors["first.weight"]
    assert seen.dtype == torch.float32
    assert torch.equal(seen, raw["first.weight"].half().float())
    assert rounding(seen) == torch.finfo(torch.float16).eps
    assert rounding(raw["first.weight"]) == torch.finfo(torch.float32).eps
    assert rounding(raw["first.weight"].bfloat16().float()) == torch.finfo(torch.bfloat16).eps


def test_frozen_values_come_from_the_state_dict_and_the_model_stays_as_it_is(model):
    model.first.requires_grad_(False)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    after = {n: t + 0.1 if n.startswith("last") else t for n, t in before.items()}
    fresh = Net().eval()
    fresh.first.requires_grad_(False).weight.data.zero_()
    seen = Observation.from_parameters(
        fresh, LOSS, {f"module.{n}": t.numpy() for n, t in before.items()}, after,
        domain=Images(SHAPE), learning_rate=0.1, num_examples=1, num_classes=4,
    )  # fmt: skip
    assert torch.equal(seen.task.model.first.weight, before["first.weight"])
    assert not fresh.first.weight.any()
    assert torch.allclose(seen.update.tensors["last.bias"], torch.tensor(-1.0), atol=1e-5)


def test_wrappers_are_looked_through(model):
    compiled = torch.compile(model, backend="eager")
    assert bare(nn.DataParallel(compiled)) is model
    assert Task(nn.DataParallel(model), LOSS, Images(SHAPE)).model is model
    assert bare(model) is model


def test_names_are_not_confused():
    own = {"module.weight": torch.zeros(1), "weight": torch.ones(1)}
    assert renamed(own, ["weight"]) == own  # both would become one
    assert list(renamed({"_orig_mod.module.weight": torch.zeros(1)}, ["module.weight"])) == ["module.weight"]


def test_graphs_carry_their_step():
    task = Task(nn.Linear(1, 1), LOSS, Graphs(blocks=(2,)))
    fields = {"features": torch.ones(1, 2, 2), "adjacency": torch.ones(1, 2, 2), "present": torch.ones(1, 2)}
    read = []
    task.evaluate(lambda *given: read.append(given) or torch.zeros(1, 4), {**fields, "labels": torch.tensor([1])})
    assert [tuple(t.shape) for t in read[0]] == [(1, 2, 2), (1, 2, 2), (1, 2)]
