"""A convolution whose kernel is as large as the image is a linear layer, and gives its input away like one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import invertigo
from invertigo import Images, Knowledge, Observation
from invertigo.types import RequirementError

SHAPE = (3, 6, 6)


def network(padding=0, groups=1):
    torch.manual_seed(0)
    first = nn.Conv2d(3, 96, 6, padding=padding, groups=groups)
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()


def observed(model, images, labels):
    model(images)
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
    known = Knowledge(num_examples=len(images))
    return Observation.from_gradients(
        model, F.cross_entropy, gradients, domain=Images(SHAPE), mode="eval", num_classes=4, knowledge=known
    ), gradients


@pytest.mark.parametrize("count", [1, 3])
def test_images_come_back_exactly(count):
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    seen, gradients = observed(network(), images, torch.arange(count))
    found = invertigo.reconstruct(seen, "linear_layer").fields["images"]
    assert found.shape == images.shape
    error = torch.cdist(images.flatten(1), found.flatten(1))
    assert float(error.min(1).values.max()) < 1e-3
    if count == 1:  # two lines of algebra
        row = gradients[1].abs().argmax()
        torch.testing.assert_close(found[0], gradients[0][row] / gradients[1][row], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"padding": 1}, {"groups": 3}])
def test_other_convolutions_are_still_refused(options):
    images = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    seen, _ = observed(network(**options), images, torch.tensor([2]))
    with pytest.raises(RequirementError, match="Conv2d"):
        invertigo.reconstruct(seen, "linear_layer")


def test_the_audit_finds_it_by_itself():
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(2))
    model = network()
    model(images)
    found = invertigo.audit(model, F.cross_entropy, (images, torch.tensor([0, 3])), domain=Images(SHAPE), budget="20s")
    assert found.verdict.status == "leaks"
    assert found.record.levels[found.verdict.level].strongest == "linear_layer"
    assert found.worst.outcomes == ["exact", "exact"]
