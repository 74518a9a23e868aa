"""What an audit says of steps that were handed over: a batch that does not run, parameters that nobody watched."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import invertigo
from invertigo.types import InvertigoError, MismatchError


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 4))


IMAGES = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([1, 3])


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
