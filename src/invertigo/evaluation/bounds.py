"""What an update can tell at all: rank and spectrum of its Jacobian with respect to the private input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.types import InvalidValueError, MismatchError

_LARGEST_JACOBIAN = 2**27
"""Entries; one GiB in float64."""


@dataclass(frozen=True)
class Identifiability:
    """How well a flat update pins down a flat input, to first order around one point.

    `singular_values` are those of J = ∂update/∂input, descending, `unknowns` the input's entries. Every direction of
    input space beyond `rank` can be changed without changing the update: a fit of it there says nothing.
    """

    singular_values: Float[Tensor, " values"]
    unknowns: int
    tolerance: float

    @cached_property
    def rank(self) -> int:
        """Number of singular values above the tolerance."""
        return int((self.singular_values > self.tolerance).sum())

    @property
    def identified(self) -> bool:
        """The update determines every entry of the input, near this point and without noise."""
        return self.rank == self.unknowns

    def mse_bound(self, noise: float, prior_std: float | None = None) -> float:
        """Least mean squared error per entry that an estimator can reach when the update carries Gaussian noise.

            (1 / n) Σ 1 / (s_i² / noise² + 1 / prior_std²)

        `noise` is the standard deviation of the noise on each entry of the update. Without a prior this is the
        Cramér-Rao bound for unbiased estimators, infinite unless the input is identified. `prior_std`, the spread of
        an entry before the update is seen, gives the Bayesian bound, which holds for any estimator when the map is
        linear and the prior Gaussian, and otherwise is a local approximation.

        Source: Van Trees, "Detection, Estimation, and Modulation Theory, Part I", 1968, sections 2.4.2-2.4.3.
        """
        if noise < 0 or (prior_std is not None and prior_std <= 0):
            raise InvalidValueError(f"noise={noise} must not be negative, and prior_std={prior_std} must be positive.")
        known = self.singular_values[: self.rank].double().square()
        unknown = self.unknowns - self.rank
        prior = 0.0 if prior_std is None else prior_std**-2
        if unknown and not prior:
            return float("inf")
        determined = (noise**2 / (known + prior * noise**2)).sum().item()
        return (determined + (unknown / prior if unknown else 0.0)) / self.unknowns


def identifiability(
    update: Callable[[Float[Tensor, " unknowns"]], Float[Tensor, " observed"]],
    point: Float[Tensor, " unknowns"],
    *,
    tolerance: float | None = None,
    chunk: int = 64,
) -> Identifiability:
    """Spectrum of the Jacobian of `update` at `point`, in the dtype of `point` (float64 is advised).

    `update` maps a flat input to a flat update and must be transparent to `torch.func` (its gradients taken with
    `torch.func.grad`). `tolerance` is the singular value that counts as zero; by default the largest one times the
    longer side of J times the machine's precision, as is usual for a numerical rank. `chunk` columns (or rows, where
    they are fewer) are computed at a time.

    Raises: InvalidValueError where J would not fit in memory: it is meant for small images and networks.
    """
    if point.ndim != 1:
        raise MismatchError(f"The point must be flat, not of shape {tuple(point.shape)}; reshape inside `update`.")
    output, pullback = torch.func.vjp(update, point)[:2]
    observed, unknowns = output.numel(), point.numel()
    if observed * unknowns > _LARGEST_JACOBIAN:
        raise InvalidValueError(
            f"The Jacobian of {observed} observed by {unknowns} unknown entries is too large to hold; look at a "
            "smaller image, or at some layers of the update only."
        )
    if observed < unknowns:
        sides = _rows(lambda v: pullback(v)[0], observed, output, chunk)
    else:
        sides = _rows(lambda v: torch.func.jvp(update, (point,), (v,))[1], unknowns, point, chunk)
    values = torch.linalg.svdvals(sides)
    rounding = values[0].item() * max(observed, unknowns) * torch.finfo(values.dtype).eps
    return Identifiability(values, unknowns, rounding if tolerance is None else tolerance)


def _rows(product: Callable[[Tensor], Tensor], count: int, like: Tensor, chunk: int) -> Float[Tensor, "count other"]:
    """`product` of every unit vector."""
    units = torch.eye(count, dtype=like.dtype, device=like.device)
    return torch.func.vmap(product, chunk_size=chunk)(units).detach()
