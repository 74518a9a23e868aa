"""The row space of a gradient, and which candidates lie in it. Shared by every attack that checks spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

FLOOR = 64
"""A singular value this many roundings of the matrix below the largest one is taken for rounding."""
SAFETY = 2.0
"""How far above the expected distance of a true member a candidate may lie and still pass."""
TIGHTEST = 1e-6
"""No tolerance is smaller: data are often kept in single precision before a model in double precision reads them."""
LOOSEST = 1e-2
"""No tolerance is larger: above it, members and strangers are no longer told apart."""
SKETCHES = (32, 96)
"""Directions in which the row space of a larger matrix is first looked for: few, then more, then all there are."""
TAIL, TAIL_SPREAD = 8, 4.0
"""How many of the last singular values are rounding for sure, and by what factor the first one of them may exceed
these."""
SPARE = 12
"""Of these directions so many must show nothing but noise; else there may be more to find."""


@dataclass(frozen=True)
class Subspace:
    r"""A subspace of $\mathbb{R}^d$ known from a matrix whose rows lie in it.

    For a linear layer $Z = XW$ the gradient is $\partial L / \partial W = X^T \partial L / \partial Z$, so the rows of
    $(\partial L / \partial W)^T$ lie in the row space of the layer's inputs $X$, and span it when $\partial L /
    \partial Z$ has full rank.

    Args:
        basis: (rank, d) orthonormal rows that span it.
        values: singular values of the matrix, largest first: all that count, and some of those that do not.
        noise: what a singular value that should be zero may measure.

    Source: Petrov et al. (2024), theorems 3.1 and 5.1.
    """

    basis: Float[Tensor, "rank dim"]
    values: Float[Tensor, " values"]
    noise: float

    @cached_property
    def null(self) -> Float[Tensor, "co_rank dim"]:
        """Orthonormal rows that span the rest."""
        return torch.linalg.qr(self.basis.T, mode="complete").Q[:, self.rank :].T

    @cached_property
    def rank(self) -> int:
        """Dimension of the subspace."""
        return len(self.basis)

    @property
    def full(self) -> bool:
        """Every vector lies in it, so that it tells nothing."""
        return self.rank == self.basis.shape[1]

    @cached_property
    def gap(self) -> float:
        """Ratio of the smallest singular value that counts to the largest that does not (or to the noise)."""
        if self.rank == 0:
            return 1.0
        below = float(self.values[self.rank]) if self.rank < len(self.values) else 0.0
        return float(self.values[self.rank - 1]) / max(below, self.noise, 1e-300)

    @property
    def confidence(self) -> float:
        """How clear the rank is, in [0, 1]: 1 from a gap of a thousand on, 0 where there is none."""
        gap = torch.tensor(max(self.gap, 1.0), dtype=torch.float64)
        return min(float(gap.log10()) / 3, 1.0)

    @cached_property
    def tolerance(self) -> float:
        """The relative distance up to which a candidate counts as a member: the tilt that the noise gives the basis."""
        return min(max(SAFETY / self.gap, TIGHTEST), LOOSEST)

    def distance(self, vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        r"""Relative distance $\|v - Pv\| / \|v\|$ of each vector, in [0, 1]; 0 for the zero vector.

        Measured on the difference, where a member leaves rounding only, rather than as a difference of norms.
        """
        vectors = vectors.to(self.basis)
        if self.full:
            return vectors.new_zeros(vectors.shape[:-1])
        rest = vectors - (vectors @ self.basis.T) @ self.basis
        return rest.norm(dim=-1) / vectors.norm(dim=-1).clamp_min(1e-300)

    def residual(self, vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch co_rank"]:
        """Coordinates of each vector along the null basis; additive over the parts of a vector."""
        return vectors.to(self.null) @ self.null.T

    def probes(self, count: int, seed: int = 0) -> Float[Tensor, "dim probes"]:
        """At most `count` orthonormal directions of the null space, drawn at random: members are orthogonal to them.

        Checking a few probes first costs a fraction of a full distance and lets next to no stranger through.
        """
        if count >= len(self.null):
            return self.null.T
        generator = torch.Generator().manual_seed(seed)
        mixed = torch.randn(len(self.null), count, generator=generator, dtype=torch.float64)
        return self.null.T @ torch.linalg.qr(mixed).Q.to(self.null)

    def restricted(self, columns: Int[Tensor, " kept"] | Sequence[int] | slice) -> Subspace:
        """The subspace as seen through some coordinates: the row space of those columns of the basis.

        It tells members from strangers as long as more coordinates than the rank are kept.
        """
        kept = self.basis[:, columns] * self.values[: self.rank, None]
        return row_space(kept, noise=2 * self.noise)

    def cpu(self) -> Subspace:
        """The same subspace on the processor."""
        return Subspace(self.basis.cpu(), self.values.cpu(), self.noise)

    @cached_property
    def projector(self) -> Float[Tensor, "dim dim"]:
        """The matrix that projects a vector onto the subspace."""
        return self.basis.T @ self.basis


def row_space(matrix: Float[Tensor, "rows dim"], *, noise: float | None = None, rank: int | None = None) -> Subspace:
    """The row space of a matrix, by QR and SVD in float64, where the matrix lies.

    The rank ends at the largest ratio of neighbouring singular values whose lower one may be noise; never the Gram
    matrix, which would square the ratios. A large matrix is first reduced to the few directions it has.

    Args:
        noise: singular value that noise alone may give, e.g. from `noise_singular_value`; None: the rounding of the
            matrix's dtype.
        rank: when it is known otherwise.
    """
    widths = tuple(width for width in SKETCHES if min(matrix.shape) > 2 * width)
    return _row_space(matrix.double(), torch.finfo(matrix.dtype).eps, noise, rank, widths)


def _row_space(
    matrix: Tensor, rounding: float, noise: float | None, rank: int | None, widths: tuple[int, ...]
) -> Subspace:
    values, right = _leading(matrix, widths[0]) if widths else _all(matrix)
    sizes = values.tolist()
    top = sizes[0] if sizes else 0.0
    found = _rank(sizes, FLOOR * rounding * top if noise is None else noise) if rank is None else rank
    if widths and found + SPARE > len(sizes):
        return _row_space(matrix, rounding, noise, rank, widths[1:])
    below = sizes[found] if found < len(sizes) else 0.0
    return Subspace(right[:found], values, max(below, noise or 0.1 * rounding * top))


def _all(matrix: Float[Tensor, "rows dim"]) -> tuple[Tensor, Tensor]:
    """All singular values and their right vectors (value, dim)."""
    if matrix.shape[0] > matrix.shape[1]:
        matrix = torch.linalg.qr(matrix, mode="r").R
    _, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return values, right


def _leading(matrix: Float[Tensor, "rows dim"], width: int) -> tuple[Tensor, Tensor]:
    """The first `width` singular values and right vectors, from the matrix's action on random directions.

    Exact up to rounding as long as fewer directions than these exceed the noise.
    What does not is seen a little too small, so that tolerances come out too tight without the second pass.
    Source: Halko, Martinsson and Tropp (2011), algorithm 4.4 with one iteration.
    """
    left = torch.linalg.qr(matrix @ _directions(matrix.shape[1], width).to(matrix)).Q
    right = torch.linalg.qr(matrix.T @ left).Q
    _, values, turned = torch.linalg.svd(torch.linalg.qr(matrix @ right, mode="r").R)
    return values, turned @ right.T


@lru_cache(maxsize=16)
def _directions(dim: int, count: int) -> Float[Tensor, "dim count"]:
    return torch.randn(dim, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rank_above_tail(space: Subspace) -> int:
    """The rank by where the flat tail of rounding starts, never less than it was taken for.

    Rounding to single precision leaves singular values that are much alike, often far below the floor that is reckoned
    with at first: between the two lie directions that count, such as those in which nodes deep in a network differ.
    """
    if len(space.values) < space.rank + TAIL:
        return space.rank
    above = int((space.values > TAIL_SPREAD * space.values[-TAIL]).sum())
    return max(above, space.rank)


def noise_singular_value(std: float, shape: Sequence[int]) -> float:
    """The largest singular value of a (rows, columns) matrix of independent noise of this standard deviation.

    Source: Davidson and Szarek (2001): sqrt(rows) + sqrt(columns), in units of the standard deviation.
    """
    return std * (shape[0] ** 0.5 + shape[1] ** 0.5)


def _rank(values: Sequence[float], floor: float) -> int:
    above = sum(value > floor for value in values)
    if above in (0, len(values)):
        return above
    # The floor is a guess, because rounding grows with depth and shrinks with size: the clearest gap near it decides.
    lowest = max(floor / 256, 1e-300)
    near = range(max(above - 3, 0), min(above + 8, len(values) - 1))
    ratios = {k: values[k] / max(values[k + 1], lowest) for k in near if values[k + 1] <= floor * 16}
    return max(ratios, key=lambda k: ratios[k]) + 1 if ratios else above
