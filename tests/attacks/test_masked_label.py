"""One label behind masks of the classifier's gradient, against simulated clients."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo.attacks import infer_labels
from invertigo.attacks.masked_label import has_holes
from invertigo.domains import Images
from invertigo.types import Knowledge, Observation

SHAPE = (1, 8, 8)


def client(seed, activation, change, classes=10):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), activation, nn.Linear(96, classes))
    image, label = torch.rand(1, *SHAPE), torch.randint(classes, (1,))
    gradients = torch.autograd.grad(cross_entropy(model(image), label), list(model.parameters()))
    sent = [change(g) for g in gradients]
    known = Knowledge(num_examples=1)
    return Observation.from_gradients(
        model, cross_entropy, sent, domain=Images(SHAPE), num_classes=classes, knowledge=known
    ), int(label)


def band(largest, smallest):
    """The largest and smallest shares of a layer left out, at least one as too large."""

    def change(gradient):
        size, order = gradient.numel(), gradient.abs().flatten().argsort()
        flat = gradient.flatten().clone()
        flat[order[: int(smallest * size)]] = 0
        if largest:
            flat[order[size - max(1, int(largest * size)) :]] = 0
        return flat.view_as(gradient)

    return change


def at_random(gradient):
    return gradient * (torch.rand(gradient.shape) < 0.4)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Tanh()], ids=["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("change", [band(0.05, 0.75), band(0.0, 0.6), at_random], ids=["dual", "smallest", "random"])
def test_one_label_is_read_through_a_mask(activation, change):
    right = 0
    for seed in range(16):
        observation, label = client(seed, activation, change)
        right += infer_labels(observation).labels.tolist() == [label]
    assert right >= 15


def test_silent_features_are_no_holes():
    weight = torch.outer(torch.randn(4), torch.tensor([1.0, 0.0, 2.0, 0.0]))
    assert not has_holes(weight, torch.ones(4))
    weight[1, 2] = 0
    assert has_holes(weight, torch.ones(4))
