"""OUTPOST: prune every layer and add noise where its weights are spread, less often as training goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.defenses.registry import register
from invertigo.defenses.releases import mean_release, released
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step, trainable

Tensors = Mapping[str, Tensor]


@register
@dataclass(frozen=True, kw_only=True)
class Outpost(Defense):
    r"""In local step $i$, with probability $1 / (1 + \beta i)$, prune each layer and add noise by its risk:

    $\tilde g_l = \mathrm{prune}(g_l) + m_l \odot \mathcal N(0, (\rho_l\, b)^2)$, $\rho_l = \min(\mathrm{Var}(w_l), 1)$.

    Pruning zeros the `prune` share of smallest entries. $m_l$ marks the `noisy` share of entries with the largest
    empirical Fisher information, which is $g^2$ of the step's gradient. The first step of a round is always
    perturbed, so no update is sent as it is.

    With the usual initialisations $\rho_l$ is between 5e-5 and 2e-2: the noise is negligible, and what protects is the
    pruning, whose zeros an adversary sees.

    Args:
        prune: share of a layer's entries that are zeroed, in [0, 1).
        noise: $b$, at least 0.
        noisy: share of a layer's entries that get noise, in (0, 1].
        decay: $\beta$, at least 0.

    The authors' framework has returned the raw gradient since September 2024 (its loop rebinds a local name), and
    before that it seeded its noise with a constant, so that anybody could subtract it.

    Source: Wang, Hugh, Li (2023), with the constants of the authors' code.
    """

    name: ClassVar[str] = "outpost"
    paper: ClassVar[Paper] = Paper(
        "wang2023more",
        "More than Enough is Too Much: Adaptive Defenses against Gradient Leakage in Production Federated Learning",
        "Wang, Fei and Hugh, Ethan and Li, Baochun",
        2023,
        "IEEE International Conference on Computer Communications",
    )
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "prune"
    strengths: ClassVar[tuple[float, ...]] = (0.5, 0.8, 0.9, 0.99)

    prune: float = 0.8
    noise: float = 0.8
    noisy: float = 0.4
    decay: float = 0.125

    def __post_init__(self) -> None:
        if not (0 <= self.prune < 1 and 0 < self.noisy <= 1):
            raise InvalidValueError(
                f"outpost.prune is {self.prune} and outpost.noisy is {self.noisy}: they are shares of a layer's "
                "entries, in [0, 1) and (0, 1]. Pruning everything would leave nothing to learn from."
            )
        if self.noise < 0 or self.decay < 0 or self.prune + self.noise == 0:
            raise InvalidValueError(
                f"outpost.noise is {self.noise} and outpost.decay is {self.decay}: noise has a standard deviation of "
                "at least 0 and the chance of protecting a step cannot grow beyond 1. Without noise and pruning the "
                "true gradient is sent; the defaults are noise=0.8, prune=0.8, decay=0.125."
            )

    def on_gradient(self, gradient: Tensors, step: Step) -> Tensors:
        """The perturbed gradient, or in later steps perhaps the gradient as it is."""
        chance = 1 / (1 + self.decay * step.number)
        drawn = torch.rand((), generator=step.generator, device=step.generator.device).item()
        protected = drawn < chance
        step.facts["steps"] = step.facts.get("steps", 0.0) + 1
        step.facts["protected_steps"] = step.facts.get("protected_steps", 0.0) + protected
        if not protected:
            return gradient
        weights = trainable(step.model)
        return {name: self._perturbed(g, risk(weights[name]) * self.noise, step) for name, g in gradient.items()}

    def _perturbed(self, gradient: Tensor, std: float, step: Step) -> Tensor:
        count = gradient.numel()
        order = gradient.detach().double().abs().flatten().argsort(stable=True)
        kept = torch.ones(count, dtype=gradient.dtype, device=gradient.device)
        kept[order[: int(self.prune * count + 1e-9)]] = 0
        informative = torch.zeros_like(kept)
        informative[order[count - math.ceil(self.noisy * count - 1e-9) :]] = 1
        own = step.generator
        drawn = torch.randn(gradient.shape, generator=own, device=own.device, dtype=gradient.dtype).to(gradient.device)
        return gradient * kept.view_as(gradient) + std * informative.view_as(gradient) * drawn

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Leave out zeros, and of a single gradient also what is no larger than the noise, which covers zeros."""
        std = {name: risk(weight) * self.noise for name, weight in observation.parameters.items()}
        alone = observation.local.sends == "gradient"
        if not alone:
            steps = len(observation.local.steps(observation.num_examples or 1))
            std = {name: s * observation.local.learning_rate * steps**0.5 for name, s in std.items()}
        update = mean_release(observation)
        std = {name: s / len(released(observation)) ** 0.5 for name, s in std.items()}
        sent = update.tensors
        return AdversaryView(
            update=update,
            knows="The adversary knows each layer's noise from the weights it sent, and leaves out entries that are "
            "zero" + (" or drown in it." if alone else "."),
            visible={name: _above(tensor, std[name] if alone else 0.0) for name, tensor in sent.items()},
            noise_std=std,
        )


def risk(weight: Tensor) -> float:
    """Variance of a layer's weights, at most 1."""
    return min(weight.detach().double().var(correction=0).item(), 1.0)


def _above(tensor: Tensor, threshold: float) -> Tensor:
    """1 where an entry is larger than `threshold`; where none is, 1 at all that are not zero."""
    mask = tensor.abs() > threshold
    return (mask if mask.any() else tensor != 0).to(tensor)
