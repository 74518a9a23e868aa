"""What a sum of outer products is made of: its rank, its column space, and how exactly a direction of it is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

GAP = 5.0
"""The last singular value that counts is at least this many times the next one."""
FLOOR = 0.01
"""Singular values below this many roundings of the largest are nothing at all."""
SPARE = 64
"""Columns beyond the rank by which the rounding is measured."""
CERTAIN = 50.0
"""Standard deviations of the rounding under which an entry counts as zero."""


@dataclass(frozen=True)
class Factors:
    r"""$A = \Delta Z$ of rank r: an orthonormal basis of the columns of A, with what rounding leaves of it.

    `basis` (neuron, r), `values` (r,), and `noise`, the root mean square of an entry of A beyond rank r.
    """

    basis: Tensor
    values: Tensor
    noise: float

    @property
    def rank(self) -> int:
        """The number of linearly independent examples."""
        return len(self.values)

    @cached_property
    def products(self) -> Tensor:
        """(neuron, pair) products of every two columns of the basis, each pair once."""
        above = torch.triu_indices(self.rank, self.rank, device=self.basis.device)
        return self.basis[:, above[0]] * self.basis[:, above[1]]

    def normal(self, weights: Tensor) -> Tensor:
        """(row, r, r) $U^T diag(w) U$ for weights (row, neuron)."""
        above = torch.triu_indices(self.rank, self.rank, device=weights.device)
        half = weights.new_zeros(len(weights), self.rank, self.rank)
        half[:, above[0], above[1]] = weights @ self.products
        return half + half.triu(1).transpose(1, 2)

    def rounding(self, directions: Tensor) -> Tensor:
        """(row,) standard deviation of the entries of `basis @ p` for unit directions p (row, r)."""
        return self.noise * (directions / self.values).norm(dim=-1)


def factor(matrix: Tensor, eps: float, largest: int | None = None) -> Factors | None:
    """Factors of `matrix` (neuron, feature), whose entries were rounded to `eps`; None where no rank stands out.

    Args:
        largest: the rank is no larger, because no more examples were summed.
    """
    rows, columns = len(matrix), int(matrix.any(0).sum())
    if largest is not None and 2 * largest + SPARE < columns:
        # Random mixtures of the columns span the same space; a full decomposition takes ten times as long.
        columns = 2 * largest + SPARE
        generator = torch.Generator().manual_seed(0)
        mixing = torch.randn(matrix.shape[1], columns, generator=generator, dtype=torch.float64).to(matrix)
        matrix = matrix @ mixing / columns**0.5
    basis, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    floor = FLOOR * eps * values[0]
    padded = torch.cat([values, values.new_zeros(1)]).clamp_min(floor)
    gaps = padded[:-1] / padded[1:]
    counted = gaps[:-1][:largest]  # with full rank nothing is left to measure the rounding by
    if not len(counted) or float(counted.max()) < GAP:
        return None
    rank = int(counted.argmax()) + 1
    spare = max(1, (rows - rank) * (columns - rank))
    noise = max(float(values[rank:].square().sum() / spare) ** 0.5, float(floor) / (rows * columns) ** 0.5)
    return Factors(basis[:, :rank], values[:rank], noise)
