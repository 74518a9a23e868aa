"""The label of one example from a classifier's gradient of which entries were left out."""

from __future__ import annotations

import torch
from torch import Tensor

from invertigo.attacks.completion import rank_one
from invertigo.attacks.hidden_pixels import few_levels


def has_holes(weight: Tensor, bias: Tensor | None) -> bool:
    """Some entry of (class, feature) is zero although its row and its column are not, or some bias entry is.

    Silent features and rows without any gradient are no holes, and neither are entries rounded to zero.
    """
    rows, columns = weight.any(1), weight.any(0)
    hole = bool(((weight == 0) & rows[:, None] & columns[None]).any())
    lost = bias is not None and bool(bias.any()) and bool(((bias == 0) & rows).any())
    return (hole or lost) and not few_levels(weight)


def masked_label(weight: Tensor, bias: Tensor | None, usual: Tensor | None) -> tuple[int, float]:
    r"""The class whose row is pushed up, and how sure that is in [0, 1].

    $G = (p - e_y)\,[h\,|\,1]^\top$: of the factor over classes only entry y is negative. It is completed to rank one
    from what was sent; its sign follows from a bias entry that was sent, else from features that are not negative on
    the whole (ReLU), else y is the one class that differs in sign from the others. A mask by magnitude may leave y's
    row on other features than all others, so that nothing connects them: then y is the row most opposed to the `usual`
    features (feature,). Rows of which nothing was sent say nothing; without a negative row, y is one of them.
    """
    matrix = weight if bias is None else torch.cat([weight, bias[:, None]], dim=1)
    fit = rank_one(matrix, (matrix != 0).to(matrix))
    pull, features = fit.left[:, 0], fit.right[:, 0]
    pull = pull * _sign(pull, features, bias is not None)
    told = int((pull < 0).sum())
    label = int(pull.argmin())
    apart = (pull == 0) & weight.any(1)
    if usual is not None and bool(apart.any()):
        shown = (weight != 0).to(weight)
        length = weight.norm(dim=1) * (shown @ usual.square()).sqrt()
        along = weight @ usual / length.clamp_min(torch.finfo(weight.dtype).tiny)
        return int(along.argmin()), 0.5
    if told == 0:  # the row that was left out as too large, if one was
        unsent = (pull == 0).nonzero()[:, 0]
        return (int(unsent[0]), 1.0 / len(unsent)) if len(unsent) else (label, 0.0)
    return label, 1.0 if told == 1 else 0.5


def _sign(pull: Tensor, features: Tensor, biased: bool) -> float:
    """Which of the factors' two signs is right."""
    if biased and float(features[-1]) != 0:
        return float(features[-1].sign())
    total = float(features.sum())
    if abs(total) > 0.5 * float(features.abs().sum()):
        return 1.0 if total > 0 else -1.0
    return 1.0 if int((pull < 0).sum()) <= int((pull > 0).sum()) else -1.0
