"""What once was called safe and was not: values from algebra, plain autograd and construction."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo.auditing.controls.positive import vouching
from invertigo.auditing.record import AttackRecord
from invertigo.auditing.trial import update_residuals
from invertigo.domains import Images
from invertigo.types import Knowledge, Observation

SHAPE = (1, 4, 4)


def test_a_candidate_outside_the_range_of_the_data_explains_nothing():
    """Of a linear layer, `X + A B` with `D^T A = 0`, `B W^T = 0` has the gradient of `X`, however large it is."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    images, labels = torch.rand((4, *SHAPE), generator=generator, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
    domain = Images(SHAPE)
    seen = Observation.from_gradients(
        model, F.cross_entropy, gradients, domain=domain, knowledge=Knowledge(num_examples=4)
    )
    logits = model(images).detach()
    d = logits.softmax(1) - F.one_hot(labels, 2)
    a = torch.linalg.svd(d.T)[2][d.T.shape[0] :].T  # the last rows span what D^T maps to zero
    b = torch.linalg.svd(model[1].weight.detach())[2][2:]
    moved = (a[:, :1] @ b[:1]).view_as(images)

    def residuals(size):
        return update_residuals(seen, {"images": images + size * moved / moved.abs().max(), "labels": labels})

    assert residuals(50.0)[0] == pytest.approx(0.0, abs=1e-9)
    clamped = (images + 50 * moved / moved.abs().max()).clamp(0, 1)
    own = torch.autograd.grad(F.cross_entropy(model(clamped), labels), list(model.parameters()))
    own, goal = (torch.cat([t.flatten() for t in those]) for those in (own, gradients))
    factor = (own @ goal / (own @ own)).clamp_min(0)
    assert residuals(50.0)[1] == pytest.approx(((factor * own - goal).norm() / goal.norm()).item())
    assert residuals(50.0)[1] > 0.01
    assert residuals(0.0)[1] == pytest.approx(0.0, abs=1e-12)


def test_algebra_and_crafted_models_do_not_vouch_for_a_search():
    def record(name, level, outcome, exact=False):
        return AttackRecord(level=level, attack=name, paper="p", exact=exact, status="ran", outcomes=[outcome])

    idle, algebra = record("search", 1, "nothing"), record("algebra", 3, "exact", exact=True)
    assert vouching([idle, algebra]) is None
    assert vouching([idle, record("imprint", 5, "exact")]) is None
    assert vouching([algebra]) is algebra
    found = record("search", 3, "recognisable")
    assert vouching([idle, algebra, found]) is found
