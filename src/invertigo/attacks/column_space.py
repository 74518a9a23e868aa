"""Which classes a batch holds, from the column space of the classifier's weight gradient."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from invertigo.attacks.classifier_gradient import ClassifierGradient
from invertigo.attacks.subspace import row_space


def classes_in_column_space(reader: ClassifierGradient, rank: int) -> Tensor | None:
    """(class,) which classes occur, from the column space of the weight gradient; None where it tells nothing.

    Every example's derivative lies in that space, and has one negative entry, at its own class. So class k occurs
    only if the space holds a vector that is negative at k alone: a linear programme for each class.

    Source: Dang et al. (2021), Revealing and Protecting Labels in Distributed Training.
    """
    weight = reader.weight_gradient
    if weight is None or not 0 < rank < reader.classes - 1:
        return None
    left = row_space(weight.T, rank=rank).basis.T.cpu().numpy()
    found = [_negative_only_at(left, k) for k in range(reader.classes)]
    return torch.tensor(found, device=weight.device) if any(found) else None


def _negative_only_at(space: np.ndarray, k: int) -> bool:
    others = np.delete(space, k, axis=0)
    outcome = linprog(
        np.zeros(space.shape[1]), A_ub=-others, b_ub=np.full(len(others), 1e-7), A_eq=space[k : k + 1], b_eq=[-1.0],
        bounds=(None, None), method="highs",
    )  # fmt: skip
    return outcome.status == 0
