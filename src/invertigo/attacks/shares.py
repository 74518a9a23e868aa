"""The shares of a batch's targets in a gradient."""

from __future__ import annotations

import torch
from scipy.optimize import nnls
from torch import Tensor


def fit_shares(directions: Tensor, gradient: Tensor) -> Tensor:
    """(class,) shares c >= 0 with sum 1 that minimise |sum_k c_k D_k - g|; `directions` (label, class), g (class,)."""
    scale = max(float(directions.abs().max()), 1e-12)
    read = directions.any(1).to(torch.float64)[None]  # a target that the loss ignores would absorb any rest
    system = torch.cat([directions.T / scale, 10 * read]).cpu().numpy()
    target = torch.cat([gradient.cpu() / scale, torch.full((1,), 10.0, dtype=torch.float64)]).numpy()
    solution, _ = nnls(system, target)
    return torch.from_numpy(solution / max(solution.sum(), 1e-12)).to(gradient.device)
