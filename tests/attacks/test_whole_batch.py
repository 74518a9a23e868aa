"""Whether an answer of the first linear layer holds the whole batch is said, and only then it may be called exact."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo.attacks import reconstruct
from invertigo.auditing.record import AttackRecord
from invertigo.auditing.verdict import is_certified
from invertigo.domains import Images
from invertigo.types import Knowledge, Observation

SHAPE = (1, 4, 4)


def seen(weights, images, size, change=lambda g: g):
    """Two outputs and the neurons whose weights are given (neuron, pixel), bias 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, len(weights)), nn.ReLU(), nn.Linear(len(weights), 3)).double()
    torch.manual_seed(0)
    with torch.no_grad():
        model[1].weight.copy_(weights)
        model[1].bias.zero_()
        model[3].weight.copy_(torch.randn(3, len(weights)))
    labels = torch.arange(len(images)) % 3
    gradients = torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters()))
    known = Knowledge(num_examples=size)
    sent = [change(g) for g in gradients]
    return Observation.from_gradients(model, cross_entropy, sent, domain=Images(SHAPE), num_classes=3, knowledge=known)


def record_of(rebuilt):
    return AttackRecord(
        level=1, attack=rebuilt.attack, paper="p", exact=True, status="ran", stopped=rebuilt.stopped, residual=0.0
    )


def halves():
    """Three images: one lights the upper half only, the other two the lower half."""
    torch.manual_seed(1)
    images = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    images[0, :, :2] = torch.rand(2, 4)
    images[1:, :, 2:] = torch.rand(2, 1, 2, 4)
    return images


def neurons(parts):
    """Eight neurons that see one half of the image with positive weights, for each part (0 upper, 1 lower)."""
    torch.manual_seed(2)
    weights = torch.zeros(8 * len(parts), 4, 4, dtype=torch.float64)
    for number, part in enumerate(parts):
        weights[8 * number : 8 * (number + 1), 2 * part : 2 * part + 2] = torch.rand(8, 2, 4) + 0.1
    return weights.flatten(1)


def test_a_part_of_the_batch_is_never_certified_as_the_whole():
    observation = seen(neurons([0, 1]), halves(), 3)  # the lower half's neurons mix two images
    rebuilt = reconstruct(observation, "linear_layer")
    assert len(rebuilt.fields["images"]) < 3
    assert rebuilt.stopped == "ambiguous"
    assert "of 3 examples" in rebuilt.notes[0]
    assert not is_certified(record_of(rebuilt))


def test_the_whole_batch_is():
    observation = seen(neurons([0, 1]), halves()[:2], 2)
    rebuilt = reconstruct(observation, "linear_layer")
    error = torch.cdist(rebuilt.fields["images"].flatten(1), halves()[:2].flatten(1)).min(0).values
    assert float(error.max()) < 1e-9
    assert is_certified(record_of(rebuilt))


@pytest.mark.parametrize("levels", [1, 7])
def test_ratios_of_rounded_entries_agree_whatever_the_image_was(levels):
    def rounded(gradient):
        if levels == 1:
            return gradient.sign()
        step = gradient.abs().max() / levels
        return (gradient / step).round() * step

    observation = seen(neurons([0, 1]), torch.full((1, 1, 4, 4), 0.4, dtype=torch.float64), 1, rounded)
    rebuilt = reconstruct(observation, "linear_layer")
    assert rebuilt.stopped != "exact"
    assert not is_certified(record_of(rebuilt))
