"""Which rebuilt example belongs to which true one: the order of a rebuilt batch means nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

UNMATCHED = -1
"""Stands in a matching for a true example that no rebuilt one is left for."""


def squared_distances(left: Float[Tensor, "n features"], right: Float[Tensor, "m features"]) -> Float[Tensor, "n m"]:
    """Mean squared difference of every pair of rows."""
    cross = left @ right.T
    total = left.square().sum(1)[:, None] + right.square().sum(1)[None, :] - 2 * cross
    return total.clamp_min(0) / left.shape[1]


def match(cost: Float[Tensor, "truths guesses"]) -> Int[Tensor, " truths"]:
    """The assignment of least total cost: entry `i` is the guess paired with truth `i`, each guess used once.

    With fewer guesses than truths, the truths that cost most to serve get -1; with more, the guesses that fit
    least are left over.
    """
    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    matching = torch.full((cost.shape[0],), UNMATCHED, dtype=torch.long)
    matching[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return matching
