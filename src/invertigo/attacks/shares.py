"""The shares of a batch's targets in a gradient."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

LARGEST_BATCH = 256


def fit_shares(directions: Tensor, gradient: Tensor) -> Tensor:
    """(class,) shares c >= 0 with sum 1 that minimise |sum_k c_k D_k - g|; `directions` (label, class), g (class,)."""
    scale = max(float(directions.abs().max()), 1e-12)
    read = directions.any(1).to(torch.float64)[None]  # a target that the loss ignores would absorb any rest
    system = torch.cat([directions.T / scale, 10 * read]).cpu().numpy()
    target = torch.cat([gradient.cpu() / scale, torch.full((1,), 10.0, dtype=torch.float64)]).numpy()
    solution, _ = nnls(system, target)
    return torch.from_numpy(solution / max(solution.sum(), 1e-12)).to(gradient.device)


def whole_size(share: Tensor, least: int) -> int:
    """The smallest batch size, at least `least`, at which all shares are whole counts; else the nearest one."""
    sizes = range(least, LARGEST_BATCH + 1)
    errors = [float((share * n - (share * n).round()).abs().max()) for n in sizes]
    for n, error in zip(sizes, errors):
        if error < 0.1:
            return n
    return sizes[int(np.argmin(errors))]


def rounded(share: Tensor, size: int) -> Tensor:
    """Whole counts that add up to `size`: largest remainders."""
    wanted = share * size
    counts = wanted.floor().long()
    missing = size - int(counts.sum())
    counts[(wanted - counts).argsort(descending=True)[:missing]] += 1
    return counts


def listed(counts: Tensor) -> Tensor:
    """(example,) labels in order, each as often as `counts` (class,) says."""
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
