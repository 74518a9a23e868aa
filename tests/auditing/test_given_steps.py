"""What an audit says of steps that were handed over: a batch that does not run, parameters that nobody watched."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import invertigo
from invertigo import Images, Observation
from invertigo.federation import replay
from invertigo.types import Batch, InvertigoError, LocalTraining, MismatchError


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 4))


IMAGES = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([1, 3])
DOMAIN = Images(shape=(1, 6, 6))


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((IMAGES, LABELS[:, None]), r"could not be run on the private batch \(RuntimeError.*step=lambda call, fields"),
        ((IMAGES[:, :, :5], LABELS), "cannot read this batch"),
        ((IMAGES[:0], LABELS[:0]), "holds no images"),
        ((IMAGES.flatten(1), LABELS), r"pictures of one row, x\.view\(len\(x\), 1, 1, -1\)"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_with_the_way_out(batch, said):
    with pytest.raises(InvertigoError, match=said) as caught:
        invertigo.audit(network(), nn.CrossEntropyLoss(), batch, budget="1s")
    assert isinstance(caught.value, MismatchError)


def test_rows_of_a_table_can_be_audited_as_the_refusal_says():
    row = IMAGES[:1].flatten(1)
    audit = invertigo.audit(
        network(),
        nn.CrossEntropyLoss(),
        (row.view(len(row), 1, 1, -1), LABELS[:1]),
        domain=invertigo.Images(shape=(1, 1, 36), low=-1.0, high=2.0),
        attacks=["linear_layer"],
        budget="10s",
    )
    assert audit.record.verdict.status == "leaks"


def test_an_audit_says_that_gradients_were_computed_which_nobody_watched():
    model = network()
    optimizer = torch.optim.SGD(model[3].parameters(), lr=0.1)
    with invertigo.watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()
    audit = invertigo.audit(tape, attacks=["linear_layer"], budget="5s")
    assert "parameters_unwatched" in {flag.code for flag in audit.record.flags}


def test_a_refused_number_of_steps_says_how_epochs_are_stated_and_that_replays():
    model, loss = network(), nn.CrossEntropyLoss()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss(model(IMAGES[:1]), LABELS[:1]).backward()
        optimizer.step()
    sent = (model, loss, before, {name: p.detach().clone() for name, p in model.named_parameters()})
    with pytest.raises(InvertigoError, match=r"local=LocalTraining\(sends='difference', epochs=3"):
        Observation.from_parameters(*sent, domain=DOMAIN, learning_rate=0.1, steps=3, num_examples=1)
    local = LocalTraining(sends="difference", epochs=3, learning_rate=0.1)
    observation = Observation.from_parameters(*sent, domain=DOMAIN, num_examples=1, local=local)
    assert replay(observation, Batch({"images": IMAGES[:1], "labels": LABELS[:1]})).status == "exact"


def test_a_part_of_the_parameters_is_an_update_once_the_rest_is_frozen():
    model, loss = network(), nn.CrossEntropyLoss()
    weights = [model[1].weight, model[1].bias]
    part = dict(zip(["1.weight", "1.bias"], torch.autograd.grad(loss(model(IMAGES), LABELS), weights)))
    with pytest.raises(InvertigoError, match=r"requires_grad_\(False\)"):
        Observation.from_gradients(model, loss, part, domain=DOMAIN)
    model[3].requires_grad_(False)
    observation = Observation.from_gradients(model, loss, part, domain=DOMAIN)
    assert replay(observation, Batch({"images": IMAGES, "labels": LABELS})).status == "exact"
