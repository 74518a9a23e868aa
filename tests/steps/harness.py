"""What the training steps here share: tiny pictures and networks, the algebra that gives them away, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import invertigo
from invertigo.types import InvertigoError

SHAPE, CLASSES = (1, 6, 6), 4
EXACT = 1e-4
"""Largest error of a pixel that counts as rebuilt by algebra in float32."""


@dataclass(frozen=True)
class Verdict:
    """What the auditor said of one step: a status or "refused", with what it stands on."""

    status: str
    why: str = ""
    tape: Any = None
    audit: Any = None

    @property
    def update(self) -> dict[str, Tensor]:
        """The recorded update, by parameter name."""
        return dict(self.tape.update.tensors)

    @property
    def exact(self) -> int:
        """Most examples that one attack rebuilt exactly."""
        return max((attack.outcomes.count("exact") for attack in self.audit.record.attacks), default=0)


def pictures(count: int, shape: Sequence[int] = SHAPE, seed: int = 1) -> Tensor:
    """(count, *shape) noise in [0, 1]."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def mlp(
    *, seed: int = 0, activation: type[nn.Module] = nn.ReLU, outputs: int = CLASSES, width: int = 32
) -> nn.Sequential:
    """A network whose first layer gives one example away: `weight.grad[i] / bias.grad[i]` is the picture."""
    torch.manual_seed(seed)
    pixels = torch.Size(SHAPE).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), activation(), nn.Linear(width, outputs))


def convnet(*, seed: int = 0) -> nn.Sequential:
    """A network whose first layer gives nothing away by algebra."""
    torch.manual_seed(seed)
    flat = torch.Size(SHAPE).numel() * 8
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(flat, CLASSES))


def by_algebra(update: dict[str, Tensor], layer: str) -> Tensor:
    """(pixel,) the picture by the two lines: the ratio at the neuron with the largest bias gradient."""
    weight, bias = (update[f"{layer}.{part}"].double() for part in ("weight", "bias"))
    neuron = bias.abs().argmax()
    return weight[neuron] / bias[neuron]


def gives_away(update: dict[str, Tensor], layer: str, image: Tensor, tolerance: float = EXACT) -> bool:
    """Two lines of algebra rebuild `image` from this update."""
    return float((by_algebra(update, layer) - image.flatten().double()).abs().max()) < tolerance


def judge(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[..., Any],
    step: Callable[[], Any],
    *,
    attacks: Sequence[str] | None = ("linear_layer",),
    budget: str = "20s",
    levels: Sequence[int] | None = (1,),
    domain: Any = None,
    **options: Any,
) -> Verdict:
    """Watch one step and audit it; a refusal at the door is a verdict too, anything else that is raised is a fault."""
    try:
        with invertigo.watch(model, optimizer, loss, domain=domain, **options) as tape:
            step()
        chosen = None if attacks is None else list(attacks)
        audit = invertigo.audit(tape, attacks=chosen, budget=budget, levels=None if levels is None else list(levels))
    except InvertigoError as error:
        return Verdict("refused", str(error))
    return Verdict(audit.verdict.status, audit.verdict.headline, tape, audit)


def same(update: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> bool:
    """Equal to rounding, layer by layer, relative to each layer's size."""
    return all(
        float((update[name] - tensor).norm()) <= tolerance * max(float(tensor.norm()), 1e-12)
        for name, tensor in expected.items()
    )


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Plain autograd, by parameter name; zeros where the loss does not reach."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), grads)}
