"""What a loss reads and how it weighs examples, against what its documentation says."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo import Images, Knowledge, Observation
from invertigo.attacks.labels import infer_labels, tells_classes
from invertigo.attacks.reduction import reduction_of
from invertigo.attacks.targets import Targets, dense_classes, float_targets
from invertigo.types import RequirementError

SHAPE = (1, 4, 4)


def model_of(outputs, *, squeezed=False):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 24), nn.Sigmoid(), nn.Linear(24, outputs)]
    return nn.Sequential(*layers, *([nn.Flatten(0)] if squeezed else [])).eval()


def see(model, loss, labels, *, classes=None, seed=1):
    x = torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(seed))
    grads = torch.autograd.grad(loss(model(x), labels), list(model.parameters()))
    known = Knowledge(num_examples=len(labels))
    return Observation.from_gradients(
        model, loss, grads, domain=Images(SHAPE), mode="eval", num_classes=classes, knowledge=known
    )


WEIGHTS = torch.tensor([1.0, 5.0, 0.2, 2.0])


@pytest.mark.parametrize(
    ("loss", "weights", "normalised"),
    [
        (nn.CrossEntropyLoss(), torch.ones(4), True),
        (nn.CrossEntropyLoss(label_smoothing=0.1), torch.ones(4), True),
        (nn.CrossEntropyLoss(reduction="sum"), torch.ones(4), False),
        (nn.CrossEntropyLoss(weight=WEIGHTS), WEIGHTS, True),
        (nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"), torch.ones(4), False),
        (nn.CrossEntropyLoss(ignore_index=2), torch.tensor([1.0, 1, 0, 1]), True),
    ],
)
def test_reductions(loss, weights, normalised):
    def gradients(numbers):
        logits = torch.tensor([0.3, -0.2, 0.1, 0.0]).expand(len(numbers), 4).clone().requires_grad_()
        return torch.autograd.grad(loss(logits, numbers), logits)[0]

    found = reduction_of(gradients, 4)
    assert found.normalised == normalised
    assert torch.allclose(found.weights, (weights / weights.mean()).double(), atol=1e-4)
    numbers = torch.tensor([0, 1, 1, 3])
    alone = torch.cat([gradients(number[None]) for number in numbers])
    assert torch.allclose(gradients(numbers), (found.shares(numbers)[:, None] * alone).float(), atol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "squeezed", "loss", "labels", "expected"),
    [
        (1, True, nn.BCEWithLogitsLoss(), torch.tensor([1.0, 0]), Targets("binary", ())),
        (1, False, nn.BCEWithLogitsLoss(), torch.tensor([[1.0], [0]]), Targets("binary", (1,))),
        (3, False, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), torch.ones(2, 3), Targets("binary", (3,))),
        (3, False, lambda z, y: F.binary_cross_entropy(z.sigmoid(), y), torch.ones(2, 3), Targets("binary", (3,))),
        (1, False, lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y), torch.ones(2), Targets("binary", ())),
        (1, False, nn.MSELoss(), torch.zeros(2, 1), Targets("real", (1,))),
        (3, False, nn.L1Loss(), torch.zeros(2, 3), Targets("real", (3,))),
        (3, False, nn.HuberLoss(), torch.zeros(2, 3), Targets("real", (3,))),
    ],
)
def test_floating_targets(outputs, squeezed, loss, labels, expected):
    seen = see(model_of(outputs, squeezed=squeezed), loss, labels)
    assert float_targets(seen) == expected
    assert not tells_classes(seen)


def test_a_label_at_each_place():
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1)).eval()
    seen = see(model, nn.CrossEntropyLoss(), torch.zeros(2, 4, 4, dtype=torch.long))
    assert dense_classes(seen) == Targets("classes", (4, 4), 3)


@pytest.mark.parametrize("squeezed", [True, False])
@pytest.mark.parametrize("ones", [0, 1, 3, 4])
def test_yes_or_no_is_counted(squeezed, ones):
    labels = torch.tensor([1.0] * ones + [0.0] * (4 - ones))
    labels = labels if squeezed else labels[:, None]
    guess = infer_labels(see(model_of(1, squeezed=squeezed), nn.BCEWithLogitsLoss(), labels))
    assert guess.labels.shape == labels.shape
    assert guess.labels.sum() == ones


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_class_weights_are_divided_out(reduction):
    weights, right = torch.tensor([1.0, 1, 1, 5, 5, 0.2, 0.2]), 0
    for seed in range(10):
        labels = torch.randint(0, 7, (8,), generator=torch.Generator().manual_seed(seed)).sort().values
        loss = nn.CrossEntropyLoss(weight=weights, reduction=reduction)
        right += int((infer_labels(see(model_of(7), loss, labels, classes=7, seed=seed)).labels == labels).sum())
    assert right >= 76  # of 80


def test_a_regression_is_not_taken_for_classes():
    with pytest.raises(RequirementError, match="class numbers"):
        infer_labels(see(model_of(3), nn.MSELoss(), torch.randn(1, 3), classes=3))


def test_choices():
    assert Targets("binary", (2,)).choices(torch.zeros(1)).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert Targets("classes", (), 3).choices(torch.zeros(1)).tolist() == [0, 1, 2]
    assert Targets("real", ()).choices(torch.zeros(1)) is None
    soft = Targets("classes", (2,), 3).soft(torch.randn(4, 3, 2))
    assert torch.allclose(soft.sum(1), torch.ones(4, 2))
    assert Targets("classes", (2,), 3).settled(soft).shape == (4, 2)
