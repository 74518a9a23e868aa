"""How a set of examples is spread over clients: alike, or with classes skewed by a Dirichlet draw."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from invertigo.types import InvalidValueError


def partition(
    labels: Int[Tensor, " example"], clients: int, *, dirichlet: float | None = None, generator: torch.Generator
) -> list[Int[Tensor, " own"]]:
    r"""Indices of the examples that each client holds; every example is held once, every client holds one at least.

    For each class $c$, shares $p_c \sim \mathrm{Dir}(\alpha \mathbf 1)$ of its examples go to the clients. A small
    $\alpha$ leaves each client few classes; $\alpha \to \infty$ makes all alike.

    Args:
        labels: class of each example; only the Dirichlet draw reads it.
        dirichlet: $\alpha > 0$; None deals the examples out evenly and at random.

    Source: Hsu, Qi, Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification (2019), section 3; there the shares are drawn by client, here by class, as is common since.
    """
    if not 1 <= clients <= len(labels):
        raise InvalidValueError(
            f"{len(labels)} examples cannot be spread over {clients} clients: each needs one at least. "
            "Lower utility.clients or raise utility.examples."
        )
    if dirichlet is not None and not dirichlet > 0:
        raise InvalidValueError(f"dirichlet is {dirichlet}; the concentration must be positive (0.1 is strong skew).")
    order = torch.randperm(len(labels), generator=generator, device=generator.device).cpu()
    if dirichlet is None:
        return [order[client::clients].sort().values for client in range(clients)]
    draws = np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
    held: list[list[int]] = [[] for _ in range(clients)]
    shuffled = labels.cpu()[order]
    for label in shuffled.unique():
        mine = order[shuffled == label].tolist()
        shares = draws.dirichlet(np.full(clients, dirichlet))
        ends = [0, *(round(share * len(mine)) for share in shares.cumsum()[:-1]), len(mine)]
        for client, (start, end) in enumerate(itertools.pairwise(ends)):
            held[client] += mine[start:end]
    _give_each_one(held)
    return [torch.tensor(sorted(indices)) for indices in held]


def _give_each_one(held: list[list[int]]) -> None:
    for indices in held:
        if not indices:
            indices.append(max(held, key=len).pop())
