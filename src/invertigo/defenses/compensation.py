"""What can be taken back of noise on a gradient, by the random-matrix law that noise obeys and gradients do not."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.types import InvalidValueError

Tensors = Mapping[str, Tensor]
RATIO = 6.0
"""Rows for each column of the matrix that a gradient is folded into, as in the code of Wang et al. (2022)."""


def compensate(update: Tensors, variance: float, *, ratio: float | int = RATIO) -> dict[str, Tensor]:
    r"""Drop the directions in which a noisy update looks like nothing but noise.

    Its $n$ entries, in order, are folded into $v \times w$ with $v / w \approx$ `ratio`. Pure noise of this variance
    has the eigenvalues of its $w \times w$ covariance in the Marchenko-Pastur bulk
    $\sigma^2 (1 \pm \sqrt{w / v})^2$; the matrix is projected on the eigenvectors outside of it.

    Args:
        update: any tensors by name.
        variance: mean variance of the noise over all entries, in the unit of the entries squared.
        ratio: above 1.

    The authors take $v$ from the divisors of $n$, which for a prime $n$ leaves one column; here the last row is filled
    up with zeros instead. Their demonstration overestimates the variance of a mean over $N$ clients by $N^2$.

    Source: Wang, Guo, Xie, Qi (2022), and the authors' code.
    """
    if not (ratio > 1 and variance >= 0):
        raise InvalidValueError(
            f"ratio is {ratio} and variance {variance}: there must be more rows than columns, and a variance "
            "is not negative."
        )
    flat = torch.cat([tensor.flatten() for tensor in update.values()]).double()
    kept = _projected(_folded(flat, ratio), variance).flatten()[: len(flat)]
    parts = kept.split([tensor.numel() for tensor in update.values()])
    return {name: part.view(update[name].shape).to(update[name]) for name, part in zip(update, parts)}


def bulk(variance: float, ratio: float) -> tuple[float, float]:
    """The least and the largest eigenvalue that noise has, for so many rows a column."""
    return variance * (1 - math.sqrt(1 / ratio)) ** 2, variance * (1 + math.sqrt(1 / ratio)) ** 2


def _folded(flat: Float[Tensor, " entry"], ratio: float) -> Float[Tensor, "row column"]:
    columns = max(int(math.sqrt(len(flat) / ratio)), 1)
    return torch.nn.functional.pad(flat, (0, -len(flat) % columns)).view(-1, columns)


def _projected(matrix: Float[Tensor, "row column"], variance: float) -> Float[Tensor, "row column"]:
    rows, columns = matrix.shape
    if rows < 2:
        return matrix
    values, vectors = torch.linalg.eigh(torch.cov(matrix.T).view(columns, columns))
    low, high = bulk(variance, rows / columns)
    signal = vectors[:, (values <= low) | (values >= high)]
    return matrix @ signal @ signal.T
