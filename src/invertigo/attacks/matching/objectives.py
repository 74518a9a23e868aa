"""How far a simulated update is from the observed one: value and closed-form cotangent.

The gradient of an objective with respect to the simulated update is known in closed form, so no graph over the
parameters has to be built for it: the cotangent goes straight into the vector-Jacobian product with the data.
"""

# PyTorch documents its fused list operations only in the optimisers that use them; they have been stable since 1.9.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Tensors = Sequence[Tensor]
"""One tensor per layer, each (restart, *layer)."""


@runtime_checkable
class Objective(Protocol):
    """A distance between updates. `weights` holds one factor per layer: a scalar, or an entry mask."""

    def value_and_cotangent(
        self, predicted: Tensors, observed: Tensors, weights: Tensors | None
    ) -> tuple[Tensor, list[Tensor]]:
        """(restart,) values, and their derivative with respect to `predicted`."""
        ...

    def explained_by(self, observed: Tensors, noise: Sequence[float], weights: Tensors | None) -> float:
        """What the value is at the truth when `observed` carries noise of these standard deviations, one a layer."""
        ...


@dataclass(frozen=True)
class SquaredL2:
    r"""$s\,\sum_l w_l \lVert p_l - o_l \rVert_2^2$. Source: Zhu et al. 2019 (DLG)."""

    scale: float = 1.0

    def value_and_cotangent(
        self, predicted: Tensors, observed: Tensors, weights: Tensors | None
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Objective`."""
        difference = torch._foreach_sub(list(predicted), list(observed))
        weighted = torch._foreach_mul(difference, list(weights)) if weights else difference
        value = _dot(difference, weighted)
        return self.scale * value, list(torch._foreach_mul(weighted, 2 * self.scale))

    def explained_by(self, observed: Tensors, noise: Sequence[float], weights: Tensors | None) -> float:
        r"""$s\,\sum_l w_l n_l \sigma_l^2$. See `Objective`."""
        return self.scale * noise_energy(observed, noise, weights)


@dataclass(frozen=True)
class L1:
    r"""$s\,\sum_l w_l \lVert p_l - o_l \rVert_1$."""

    scale: float = 1.0

    def value_and_cotangent(
        self, predicted: Tensors, observed: Tensors, weights: Tensors | None
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Objective`."""
        difference = torch._foreach_sub(list(predicted), list(observed))
        signs = [d.sign() for d in difference]
        weighted = torch._foreach_mul(signs, list(weights)) if weights else signs
        return self.scale * _dot(difference, weighted), list(torch._foreach_mul(weighted, self.scale))

    def explained_by(self, observed: Tensors, noise: Sequence[float], weights: Tensors | None) -> float:
        r"""$s\,\sum_l w_l n_l \sigma_l \sqrt{2/\pi}$, for Gaussian noise. See `Objective`."""
        roots = [math.sqrt(sigma * math.sqrt(2 / math.pi)) for sigma in noise]
        return self.scale * noise_energy(observed, roots, weights)


@dataclass(frozen=True)
class SquaredL2PlusL1:
    r"""$\sum_l w_l \lVert p_l - o_l \rVert_2^2 + f\,a_l\,w_l \lVert p_l - o_l \rVert_1$.

    $a_l$ falls linearly from 1 at the first layer to 0 behind the last one.

    Source: Deng et al. 2021 (TAG), which gives early layers a larger share of the L1 term.
    """

    factor: float = 0.01

    def value_and_cotangent(
        self, predicted: Tensors, observed: Tensors, weights: Tensors | None
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Objective`."""
        value, cotangent = SquaredL2().value_and_cotangent(predicted, observed, weights)
        more, slope = L1().value_and_cotangent(predicted, observed, self._falling(predicted, weights))
        return value + more, list(torch._foreach_add(cotangent, slope))

    def explained_by(self, observed: Tensors, noise: Sequence[float], weights: Tensors | None) -> float:
        """The sum of what both terms are at the truth. See `Objective`."""
        early = self._falling(observed, weights)
        return SquaredL2().explained_by(observed, noise, weights) + L1().explained_by(observed, noise, early)

    def _falling(self, layers: Tensors, weights: Tensors | None) -> list[Tensor]:
        falling = [p.new_tensor(self.factor * (1 - number / len(layers))) for number, p in enumerate(layers)]
        return [f * w for f, w in zip(falling, weights)] if weights else falling


@dataclass(frozen=True)
class Cosine:
    r"""$1 - \langle p, o\rangle / (\lVert p\rVert\,\lVert o\rVert)$ over all layers together, each weighted by $w_l$.

    Invariant to the length of the update, so clipping leaves it unchanged.
    Source: Geiping et al. 2020 (Inverting Gradients).
    """

    def value_and_cotangent(
        self, predicted: Tensors, observed: Tensors, weights: Tensors | None
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Objective`."""
        left = list(torch._foreach_mul(list(predicted), list(weights))) if weights else list(predicted)
        right = list(torch._foreach_mul(list(observed), list(weights))) if weights else list(observed)
        dot, left_square, right_square = _dot(left, observed), _dot(left, predicted), _dot(right, observed)
        smallest = torch.finfo(dot.dtype).tiny
        length = (left_square * right_square).clamp_min(smallest).sqrt()
        cosine = dot / length
        along, across = -1 / length, cosine / left_square.clamp_min(smallest)
        cotangent = [torch.addcmul(o * _over(along, o), p, _over(across, p)) for p, o in zip(left, right)]
        return 1 - cosine, cotangent

    def explained_by(self, observed: Tensors, noise: Sequence[float], weights: Tensors | None) -> float:
        r"""$1 - \sqrt{1 - E/\lVert o\rVert^2}$ with $E = \sum_l w_l n_l \sigma_l^2$: noise adds its energy to the
        update's and stands at a right angle to it. See `Objective`."""
        return 1 - math.sqrt(max(1 - noise_share(observed, noise, weights), 0.0))


@dataclass(frozen=True)
class Nothing:
    """No matching at all: what the attack's priors alone would draw. The no-information baseline of a recipe."""

    def value_and_cotangent(
        self, predicted: Tensors, observed: Tensors, weights: Tensors | None
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Objective`."""
        return predicted[0].new_zeros(predicted[0].shape[0]), [torch.zeros_like(p) for p in predicted]

    def explained_by(self, observed: Tensors, noise: Sequence[float], weights: Tensors | None) -> float:
        """See `Objective`."""
        return 0.0


def noise_energy(observed: Tensors, noise: Sequence[float], weights: Tensors | None) -> float:
    r"""$\sum_l \sigma_l^2 \sum_i w_{li}$: expected weighted square of the noise; `observed` is (1, *layer) each."""
    ones = [1.0] * len(observed) if weights is None else [float(w.double().mean()) for w in weights]
    return sum(w * layer.numel() * sigma**2 for w, layer, sigma in zip(ones, observed, noise))


def noise_share(observed: Tensors, noise: Sequence[float], weights: Tensors | None) -> float:
    """Expected share of noise in the weighted square of what was observed, which contains it; at most 1."""
    ones: Sequence[Tensor | float] = [1.0] * len(observed) if weights is None else list(weights)
    whole = sum(float((w * layer.double().square()).sum()) for w, layer in zip(ones, observed))
    return min(noise_energy(observed, noise, weights) / max(whole, 1e-300), 1.0)


def layer_weights(
    scheme: str, parameters: Mapping[str, Tensor], visible: Mapping[str, Tensor] | None = None
) -> list[Tensor] | None:
    """One factor per layer: `equal`, `linear` (1 to 2 from first to last) or `inverse_size` (1 / entries).

    `visible[name]` is 1 where the adversary sees an entry and 0 where it is hidden (pruned, encrypted);
    hidden entries leave the objective altogether instead of being matched to zero.
    """
    count = len(parameters)
    factors = {
        "equal": [1.0] * count,
        "linear": [1 + i / max(count - 1, 1) for i in range(count)],
        "inverse_size": [1 / p.numel() for p in parameters.values()],
    }[scheme]
    if scheme == "equal" and visible is None:
        return None
    return [
        p.new_tensor(f) * visible[name].to(p) if visible and name in visible else p.new_tensor(f)
        for f, (name, p) in zip(factors, parameters.items())
    ]


def _dot(left: Tensors, right: Tensors) -> Tensor:
    return torch.stack([_inner(a, b) for a, b in zip(left, right)]).sum(0)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each restart, (restart,). One restart is a plain dot product, the fastest reduction."""
    if a.shape[0] == 1:
        return torch.dot(a.reshape(-1), b.reshape(-1))[None]
    return torch.einsum("rk,rk->r", a.flatten(1), b.flatten(1).expand(a.shape[0], -1))


def _over(factor: Tensor, like: Tensor) -> Tensor:
    return factor.reshape(-1, *[1] * (like.ndim - 1))
