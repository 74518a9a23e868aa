"""Models that answer every node: how many nodes of each colour carry each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import nnls
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.counts import SECONDS_TO_WEIGH, equations_for
from invertigo.attacks.exact.grain.listing import Listing
from invertigo.attacks.exact.grain.pipeline import Evidence, read_rows
from invertigo.types import Task

WHOLE = 2e-3
"""How far from a whole number a count may be by rounding."""
FAINT = 1e-6
"""A share this much smaller than the largest one is rounding; labels in balance give a colour a small one."""
MOST_TESTED = 1200
"""Unknowns up to which their independence is tested."""
MOST_WAYS = 64
"""Ways to make up a number of nodes that are kept."""


@dataclass(frozen=True)
class LabelCounts:
    """`counts[g, c]` nodes of group `g` carry label `c`; `groups[g]` lists the colours of a group.

    `residual` is the relative part of the read-out's gradient that is left unexplained. `unique` tells that no other
    counts of as many nodes explain it as well.
    """

    counts: Int[Tensor, "group label"]
    groups: tuple[tuple[int, ...], ...]
    residual: float
    unique: bool


@dataclass(frozen=True)
class Pushes:
    r"""`vectors[g]` is $\frac{1}{n} \sum_c m_{gc}\, d_{gc}$, by which group `g` pushes the logits.

    `single[g, c]` is $d_{gc}$, the loss's derivative by the logits of one node of the group with label `c`.
    """

    vectors: Float[Tensor, "group score"]
    single: Float[Tensor, "group label score"]
    groups: tuple[tuple[int, ...], ...]
    residual: float
    unique: bool

    @cached_property
    def system(self) -> tuple[Float[Tensor, "group equation label"], Float[Tensor, "group label equation"]]:
        """The push and the number of nodes of each group as functions of its counts, and the inverse."""
        ones = torch.ones(len(self.single), 1, self.single.shape[1], dtype=torch.float64)
        made = torch.cat([self.single.mT, ones], 1)
        return made, torch.linalg.pinv(made, rtol=1e-9)


def nodes_with_labels(anatomy: Anatomy, evidence: Evidence, task: Task, listing: Listing) -> LabelCounts | None:
    """Counts of the last colours with each label, from the read-out's gradient; None when no whole numbers fit."""
    if not len(evidence.levels[-1]) or evidence.features is None:
        return None
    rows = read_rows(anatomy, evidence.levels[-1], evidence.features)
    classes, budget = task.num_classes or 2, listing.budget
    # Twice: for the shares, and for whether the unknowns are independent of each other.
    seconds = 2 * SECONDS_TO_WEIGH * (len(rows) * classes) ** 3
    budget.afford(seconds, f"weighing {len(rows)} neighbourhoods with each label")
    found = pushes(anatomy, rows, task, classes)
    return None if found is None else label_counts(found, listing.most_nodes, listing.sizes[1], budget)


def pushes(anatomy: Anatomy, rows: Float[Tensor, "colour column"], task: Task, classes: int) -> Pushes | None:
    r"""Non-negative least squares $\min_{w \ge 0} \| \sum_{g,c} w_{gc} J_g^T d_{gc} - \nabla_{\mathrm{readout}} L \|$.

    The logits of a node follow from its colour, so the derivative $d_{gc}$ of its loss is known for each label it may
    have, and the read-out's gradient is linear in the shares of the nodes of each colour and label. For a softmax
    $\sum_c p_c d_{gc} = 0$, so that only the push of a group is determined, not the shares: see `label_counts`.
    """
    units = list(torch.eye(classes, dtype=torch.float64))
    parts, target, groups, group_of = equations_for(anatomy, rows, units)
    single = derivatives(anatomy, rows[[group[0] for group in groups]], task, classes)
    by_score = torch.stack(parts, 2)
    matrix = torch.einsum("eus,ucs->euc", by_score, single[group_of]).flatten(1)
    scale = matrix.norm(dim=0).clamp_min(1e-300)
    weights, _ = nnls((matrix / scale).numpy(), target.numpy(), maxiter=100 * matrix.shape[1])
    shares = (torch.from_numpy(weights) / scale).unflatten(0, (-1, classes)).sum(1)
    kept = (shares > FAINT * shares.max()).nonzero()[:, 0]
    if len(kept) == 0:
        return None
    refined = by_score[:, kept].flatten(1)
    solved, _, rank, _ = np.linalg.lstsq(refined.numpy(), target.numpy(), rcond=1e-12)
    rest = np.linalg.norm(refined.numpy() @ solved - target.numpy()) / max(float(target.norm()), 1e-300)
    vectors = torch.zeros(len(groups), classes, dtype=torch.float64)
    vectors.index_add_(0, group_of[kept], torch.from_numpy(solved).unflatten(0, (-1, classes)))
    there = group_of[kept].unique().tolist()
    return Pushes(
        vectors[there],
        single[there],
        tuple(groups[g] for g in there),
        float(rest),
        int(rank) == refined.shape[1] and _independent(by_score),
    )


def _independent(by_score: Float[Tensor, "equation unknown score"]) -> bool:
    """No other pushes of any of the unknowns make the same gradient."""
    matrix = by_score.flatten(1)
    if matrix.shape[1] > MOST_TESTED:
        return False
    values = torch.linalg.svdvals(matrix / matrix.norm(dim=0).clamp_min(1e-300))
    return len(values) == matrix.shape[1] and bool(values[-1] > 1e-9 * values[0])


def derivatives(
    anatomy: Anatomy, rows: Float[Tensor, "group column"], task: Task, classes: int
) -> Float[Tensor, "group label score"]:
    """The derivative of one node's loss by its logits, for each label that it may have."""
    with torch.enable_grad():
        logits = anatomy.model.readout(rows).detach().requires_grad_()
        made = [torch.full((len(rows),), label) for label in range(classes)]
        found = [torch.autograd.grad(task.loss(logits, label), logits)[0] for label in made]
    return torch.stack(found, 1) * len(rows)


def label_counts(found: Pushes, most_nodes: int, limit: int = 0, budget: Budget | None = None) -> LabelCounts | None:
    r"""The smallest whole numbers $m_{gc} \ge 0$ with $\sum_c m_{gc} d_{gc} = n v_g$ and $\sum_{g,c} m_{gc} = n$.

    For `n` nodes in all and $M_g$ of group `g`, the counts of its labels solve a linear system, and are whole numbers
    for few choices of $M_g$: a step of it changes them by the model's probabilities, which are not whole. `unique`
    tells that no other number of up to `limit` nodes fits either, but for multiples of the first.
    """
    for total in range(1, most_nodes + 1):
        if budget is not None:
            budget.spend()
        whole, gap, ways = _ways(found, total)
        if not ways:
            continue
        chosen = min(ways, key=lambda way: float(sum(gap[g, k].max() for g, k in enumerate(way))))
        picked = torch.stack([whole[g, k] for g, k in enumerate(chosen)]).long()
        there = [g for g, k in enumerate(chosen) if k]
        others = (n for n in range(total + 1, min(limit, most_nodes) + 1) if n % total)
        unique = found.unique and len(ways) == 1
        for other in others:
            unique = unique and (budget is None or budget.left) and not _ways(found, other)[2]
        return LabelCounts(picked[there], tuple(found.groups[g] for g in there), found.residual, unique)
    return None


def _ways(found: Pushes, total: int) -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
    """For so many nodes the counts (group, size, label), what they leave unexplained, and the choices of sizes."""
    system, inverse = found.system
    scores, sizes = found.single.shape[2], torch.arange(total + 1, dtype=torch.float64)
    slopes = inverse[..., :scores] @ found.vectors[..., None]
    counts = total * slopes[..., 0][:, None] + sizes[:, None] * inverse[:, None, :, scores]
    whole = counts.round()
    # By the system itself: with more equations than labels, the solution may leave a rest.
    made = torch.einsum("gsl,gkl->gks", system, whole)
    pushed = (total * found.vectors)[:, None].expand(-1, len(sizes), -1)
    gap = (made - torch.cat([pushed, _column(sizes, len(system))], 2)).abs()
    slack = WHOLE + 1e-6 * total
    fits = ((counts - whole).abs().amax(2) < slack) & (whole.amin(2) >= 0) & (gap.amax(2) < slack)
    return whole, gap, _made_up(fits, total) if bool(fits.any(1).all()) else []


def _column(sizes: Tensor, groups: int) -> Tensor:
    return sizes[None, :, None].expand(groups, -1, -1)


def _made_up(fits: Tensor, total: int) -> list[tuple[int, ...]]:
    """Choices of a size for each group, among those that fit, that add up to `total`."""
    ways: dict[int, list[tuple[int, ...]]] = {0: [()]}
    for options in fits:
        grown: dict[int, list[tuple[int, ...]]] = {}
        for made, choices in ways.items():
            for place in options.nonzero()[:, 0].tolist():
                if made + place <= total:
                    held = grown.setdefault(made + place, [])
                    held += [(*choice, place) for choice in choices[: MOST_WAYS - len(held)]]
        ways = grown
    return ways.get(total, [])


def dealt(
    counts: Int[Tensor, "group label"], groups: Sequence[Sequence[int]], colours: Sequence[int]
) -> tuple[int, ...]:
    """A label for each node, whose colours are given; alike nodes get theirs in ascending order."""
    group_of = {colour: g for g, group in enumerate(groups) for colour in group}
    fold = max(len(colours) // max(int(counts.sum()), 1), 1)
    left = [[label for label, count in enumerate(row) for _ in range(count * fold)] for row in counts.tolist()]
    return tuple(left[group_of[colour]].pop(0) for colour in colours)
