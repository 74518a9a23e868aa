"""First layers whose weight is computed: the gradient by the weight itself is plain autograd's."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import invertigo
from invertigo import Images, Knowledge, Observation
from invertigo.types import RequirementError

SHAPE, LOSS = (1, 4, 4), nn.CrossEntropyLoss()


def model_with(first, activation=nn.Sigmoid):
    return nn.Sequential(nn.Flatten(), first, activation(), nn.Linear(12, 4)).double().train()


def see(model, x, y):
    before = {n: b.clone() for n, b in model.named_buffers()}
    grads = torch.autograd.grad(LOSS(model(x), y), list(model.parameters()))
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    known = Knowledge(num_examples=len(x))
    return Observation.from_gradients(model, LOSS, grads, domain=Images(SHAPE), num_classes=4, knowledge=known)


@pytest.mark.parametrize("norm", [weight_norm, parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("label", [0, 3])
@pytest.mark.filterwarnings("ignore")
def test_one_example_is_exact(norm, label):
    torch.manual_seed(label)
    x = torch.rand(1, *SHAPE, dtype=torch.float64)
    seen = see(model_with(norm(nn.Linear(16, 12))), x, torch.tensor([label]))
    buffers = {n: b.clone() for n, b in seen.buffers.items()}
    rebuilt = invertigo.reconstruct(seen, "linear_layer")
    assert (rebuilt.fields["images"] - x).abs().max() < 1e-9
    assert all(torch.equal(b, seen.buffers[n]) for n, b in buffers.items())


def test_what_spectral_norm_hides_is_refused_for_several():
    torch.manual_seed(0)
    model = model_with(parametrizations.spectral_norm(nn.Linear(16, 12)))
    seen = see(model, torch.rand(3, *SHAPE, dtype=torch.float64), torch.arange(3))
    with pytest.raises(RequirementError, match="hides one direction"):
        invertigo.reconstruct(seen, "linear_layer")


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(self.first(self.first(x.flatten(1)).tanh()).tanh())


def test_a_layer_that_is_used_twice_is_refused():
    seen = see(Twice().double(), torch.rand(1, *SHAPE, dtype=torch.float64), torch.tensor([1]))
    with pytest.raises(RequirementError, match="used 2 times"):
        invertigo.reconstruct(seen, "linear_layer")
