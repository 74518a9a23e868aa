"""A matrix of low rank from the entries of it that were sent, with noise or without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STARTS = 3
"""Rows from which a rank-one completion starts."""
SETTLED = 1e-14
"""Change of the squared misfit, relative to the matrix, at which alternating least squares ends."""
RIDGE = 1e-13


@dataclass(frozen=True)
class Completed:
    """`left` (row, rank) and `right` (column, rank) of the matrix; rows and columns that no entry told are zero.

    `misfit` is the share of the visible entries (by norm) that is not explained.
    """

    left: Tensor
    right: Tensor
    misfit: float

    @property
    def matrix(self) -> Tensor:
        """(row, column), every entry."""
        return self.left @ self.right.T


def rank_one(matrix: Tensor, weight: Tensor, rounds: int = 300) -> Completed:
    r"""$A_{ij}=u_i z_j$ from the entries of `matrix` (row, column) whose `weight` is not zero.

    From one row all columns follow that it shows, from these all rows that show one of them, and so on: that is exact
    where the visible entries are, and reaches their largest connected part. Alternating weighted least squares follows,
    which is the maximum of the likelihood under Gaussian noise of variance `1 / weight`.
    """
    seen = weight > 0
    anchors = (seen.sum(1).double() * (matrix * seen).norm(dim=1)).argsort(descending=True)[:STARTS]
    fits = [_alternate(matrix, weight, *_spread(matrix * seen, seen, int(row)), rounds) for row in anchors]
    # The one that explains most entries, and these best.
    return min(fits, key=lambda fit: fit.misfit)


def low_rank(
    matrix: Tensor, weight: Tensor, rank: int, generator: torch.Generator, rounds: int = 500, starts: int = STARTS,
    late: Callable[[], bool] = lambda: False,
) -> Completed:  # fmt: skip
    """The same of any rank, from random starts; unique up to an invertible mixture of the factors."""
    fits = []
    for _ in range(starts):
        right = torch.randn(matrix.shape[1], rank, generator=generator, dtype=matrix.dtype, device=generator.device)
        fits.append(_alternate(matrix, weight, matrix.new_zeros(len(matrix), rank), right.to(matrix), rounds, late))
        if fits[-1].misfit < 1e-5 or late():
            break
    return min(fits, key=lambda fit: fit.misfit)


def _spread(matrix: Tensor, seen: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """Start values along the visible entries: from one row to its columns, from these to their rows, and so on."""
    left, right = matrix.new_zeros(len(matrix)), matrix[row].clone()
    count = -1
    while (known := int((left != 0).sum() + (right != 0).sum())) > count:
        count = known
        left = torch.where(left == 0, _ratio(matrix @ right, seen.to(matrix) @ right.square()), left)
        right = torch.where(right == 0, _ratio(matrix.T @ left, seen.to(matrix).T @ left.square()), right)
    return left[:, None], right[:, None]


def _alternate(
    matrix: Tensor, weight: Tensor, left: Tensor, right: Tensor, rounds: int, late: Callable[[], bool] = lambda: False
) -> Completed:
    weighted, whole = weight * matrix, float((weight * matrix.square()).sum())
    last = float("inf")
    for number in range(rounds):
        left = _solve(weight, weighted, right)
        right = _solve(weight.T, weighted.T, left)
        if number % 5 == 4:
            miss = float((weight * (matrix - left @ right.T).square()).sum()) / whole
            if miss < SETTLED or last - miss < 1e-7 * miss or late():
                break
            last = miss
    misfit = float((weight * (matrix - left @ right.T).square()).sum()) / whole
    return Completed(left, right, misfit**0.5)


def _solve(weight: Tensor, weighted: Tensor, factor: Tensor) -> Tensor:
    """(row, rank) weighted least squares of every row by the columns of `factor` (column, rank)."""
    rank = factor.shape[1]
    moments = (weighted @ factor)[..., None]
    if rank == 1:
        return _ratio(moments[..., 0], weight @ factor.square())
    pairs = (factor[:, :, None] * factor[:, None, :]).flatten(1)
    normal = (weight @ pairs).unflatten(1, (rank, rank))
    ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).sum(1).max() + torch.finfo(factor.dtype).tiny
    return torch.linalg.solve(normal + ridge * torch.eye(rank).to(normal), moments)[..., 0]


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0.0)
