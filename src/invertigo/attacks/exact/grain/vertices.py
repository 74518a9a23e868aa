"""Kinds of nodes with thousands of yes-or-no features: the corners of the box of features that the row space cuts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linprog
from torch import Tensor

from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.subspace import Subspace
from invertigo.domains import Graphs

MANY = 64
"""Groups from which kinds are looked for as corners instead of group by group."""
NEAR = 1e-3
"""How far from 0 or 1 a corner's features may be by rounding."""
ALIKE = 1e-4
"""Relative to the largest, how near two features are as functions of the coordinates to be one."""
TRIES = 4
MOST_CORNERS = 120


@dataclass(frozen=True)
class Corners:
    """`choices` (kind, block); `complete` tells that the row space provably holds no other kind."""

    choices: Int[Tensor, "kind block"]
    complete: bool


@dataclass(frozen=True)
class _Box:
    """Features of the row with coordinates `c`: `values @ c`, each in [0, 1], on the plane `plane @ c == 1`."""

    values: np.ndarray
    plane: np.ndarray


def corner_kinds(domain: Graphs, space: Subspace, budget: Budget) -> Corners | None:
    r"""Kinds whose rows lie in the space, by linear programming; None when they do not span it.

    The rows $\mu + \sigma (c B)$ of the space with all features in $[0, 1]$ form a polytope in the coordinates $c$,
    and a row of zeros and ones can only be a corner of it. A linear objective along each direction that the corners
    found do not span yet finds one more. When every kind has a feature that no other has (or lacks), the polytope is
    the simplex of the kinds found, so there are no others.
    """
    box = _box(domain, space)
    if box is None:
        return None
    generator = np.random.default_rng(0)
    found: list[np.ndarray] = []
    while len(found) < space.rank:
        fresh = None
        for _ in range(TRIES):
            fresh = _beyond(box, found, generator, budget)
            if fresh is not None:
                break
        if fresh is None:
            return None
        found.append(fresh)
    complete = _simplex(box, np.array(found))
    if not complete:
        found += _others(box, found, generator, budget)
        found += _exchanged(box, found, budget)
    rows = torch.from_numpy(np.array(found)) @ space.basis
    choices = domain.choices(rows).unique(dim=0)
    near = space.distance(domain.to_model(domain.one_hot(choices).double())) < space.tolerance
    if int(near.sum()) < space.rank:
        return None
    return Corners(choices[near], complete)


def _box(domain: Graphs, space: Subspace) -> _Box | None:
    """The features as linear functions on the plane that all kinds lie on; equal functions once."""
    std = torch.tensor(domain.std or (1.0,) * domain.width, dtype=torch.float64)
    mean = torch.tensor(domain.mean or (0.0,) * domain.width, dtype=torch.float64)
    slopes = (space.basis * std).T
    plane = _plane(domain, slopes, mean)
    if plane is None:
        return None
    values = slopes + mean[:, None] * plane
    largest = float(values.norm(dim=1).max())
    values = values[values.norm(dim=1) > NEAR * largest]
    _, group = values.div(ALIKE * largest).round().unique(dim=0, return_inverse=True)
    alike = torch.zeros(int(group.max()) + 1, len(plane), dtype=torch.float64).index_add_(0, group, values)
    return _Box((alike / group.bincount()[:, None]).numpy(), plane.numpy())


def _plane(domain: Graphs, slopes: Float[Tensor, "column rank"], mean: Float[Tensor, " column"]) -> Tensor | None:
    """`p` with `p @ c == 1` for every kind: a group adds up to one, or most yes-or-no features are absent."""
    for part, width in zip(domain.columns, domain.blocks):
        rest = 1.0 - float(mean[part].sum())
        if width > 1 and abs(rest) > 1e-3:
            return slopes[part].sum(0) / rest
    known = mean > 0
    if int(known.sum()) < MANY:
        return None
    first = (-slopes[known] / mean[known, None]).median(0).values
    absent = (slopes + mean[:, None] * first).norm(dim=1) < 1e-2 * slopes.norm(dim=1).max()
    absent &= known
    weights = mean[absent]
    if len(weights) < MANY:
        return None
    return -(weights[:, None] * slopes[absent]).sum(0) / weights.square().sum()


def _beyond(box: _Box, found: list[np.ndarray], generator: np.random.Generator, budget: Budget) -> np.ndarray | None:
    """A corner of zeros and ones off the span of those found, or None."""
    direction = generator.standard_normal(box.values.shape[1])
    if found:
        basis, _ = np.linalg.qr(np.array(found).T)
        direction -= basis @ (basis.T @ direction)
    for sign in (1.0, -1.0):
        corner = _corner(box, sign * direction, budget)
        if corner is not None and abs(direction @ corner) > NEAR * np.linalg.norm(direction) * np.linalg.norm(corner):
            return corner
    return None


def _corner(box: _Box, direction: np.ndarray, budget: Budget) -> np.ndarray | None:
    """The corner furthest in a direction, when its features are all zeros and ones. Raises: OutOfBudget."""
    budget.spend(1)
    limits = np.concatenate([np.full(len(box.values), 1.0 + NEAR), np.full(len(box.values), NEAR)])
    solved = linprog(
        -direction, np.concatenate([box.values, -box.values]), limits, box.plane[None], [1.0], (None, None), "highs",
        options={"time_limit": budget.remaining},
    )  # fmt: skip
    if solved.status != 0:
        return None
    features = box.values @ solved.x
    whole = features.round()
    if np.abs(features - whole).max() > 100 * NEAR:
        return None
    # From its zeros and ones the corner is known better than from the inequalities with their slack.
    exact, *_ = np.linalg.lstsq(np.vstack([box.values, box.plane]), np.append(whole, 1.0), rcond=None)
    return exact if np.abs(box.values @ exact - whole).max() < 10 * NEAR else None


def _simplex(box: _Box, found: np.ndarray) -> bool:
    """Every kind found differs from all others in a feature of its own."""
    features = (box.values @ found.T).round()
    if len(found) == 1:
        return True
    own = (features.sum(1) == 1) | (features.sum(1) == len(found) - 1)
    odd = np.where(features.sum(1) == 1, features.argmax(1), features.argmin(1))
    return len(set(odd[own].tolist())) == len(found) or len(found) == 2


def _exchanged(box: _Box, found: list[np.ndarray], budget: Budget) -> list[np.ndarray]:
    """Corners `a + b - c` of corners that are known, which are corners too if their features are zeros and ones.

    Papers that share most of their words give such corners, whose faces are too small for random directions to meet.
    """
    corners = np.array(found)
    while len(corners) < MOST_CORNERS:
        budget.spend(len(corners) ** 3)
        features = (box.values @ corners.T).round()
        first, second = np.triu_indices(len(corners), 1)
        sums = features[:, first] + features[:, second]
        broken = (sums == 0).T.astype(np.float32) @ features + (sums == 2).T.astype(np.float32) @ (1 - features)
        pairs, third = np.nonzero(broken == 0)
        made = corners[first[pairs]] + corners[second[pairs]] - corners[third]
        kept = _new(box, corners, made)
        if not len(kept):
            break
        corners = np.concatenate([corners, kept])
    return list(corners[len(found) :])


def _new(box: _Box, known: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Those of the corners that are not known, once each."""
    seen = {tuple((box.values @ corner).round().astype(int)) for corner in known}
    fresh = {tuple((box.values @ corner).round().astype(int)): corner for corner in made}
    return np.array([corner for features, corner in fresh.items() if features not in seen])


def _others(box: _Box, found: list[np.ndarray], generator: np.random.Generator, budget: Budget) -> list[np.ndarray]:
    """Corners beside those found, in random directions, until twice as many as are known bring nothing new."""
    made: list[np.ndarray] = []
    idle = 0
    while idle < 2 * (len(found) + len(made)):
        corner = _corner(box, generator.standard_normal(box.values.shape[1]), budget)
        new = [] if corner is None else list(_new(box, np.array(found + made), corner[None]))
        idle = 0 if new else idle + 1
        made += new
    return made
