"""Lean convolutions give PyTorch's own derivatives, to rounding, with one convolution less."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from invertigo.attacks.matching.lean_convolution import LeanConvolutions


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Conv2d(6, 6, 3, 1, 2, 2, groups=3, bias=False),
            nn.Tanh(),
            nn.Conv2d(6, 4, (1, 3), padding="same"),
            nn.Flatten(),
            nn.Linear(4 * 5 * 5, 5),
        ).double()


def derivative(net: nn.Module) -> tuple[list[Tensor], Tensor]:
    gen = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=gen).requires_grad_()
    update = torch.autograd.grad(
        F.cross_entropy(net(x), torch.tensor([0, 3])), list(net.parameters()), create_graph=True
    )
    cotangent = [torch.randn(g.shape, generator=gen, dtype=torch.float64) for g in update]
    return [g.detach() for g in update], torch.autograd.grad(update, x, cotangent)[0]


def test_same_derivatives_for_any_geometry() -> None:
    net = network()
    expected_update, expected = derivative(net)
    with LeanConvolutions():
        update, ours = derivative(net)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(update, expected_update, rtol=1e-12, atol=1e-14)


def test_fewer_convolutions_are_run() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3), nn.Flatten())
    net = nn.Sequential(*net, nn.Linear(2 * 9, 5)).double()

    def count() -> int:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            derivative(net)
        return sum(e.count for e in seen.key_averages() if e.key in ("aten::convolution", "aten::convolution_backward"))

    native = count()
    with LeanConvolutions():
        assert count() < native
