"""Rows of a hidden layer that measure one number of every example and sort it into bins."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.attacks.active.gate import Gate
from invertigo.types import LocalTraining

OUTERMOST = 10.0
"""Deviations from the mean at which the first and, where bins have two edges, the last bin ends."""
ORDINARY_RATE = 0.1
"""Learning rate at which a difference of float32 parameters shows single bins; at smaller ones they are made louder."""
EMPTY = 1e-5
"""Share of the largest bias gradient under which a bin is taken to hold nothing."""


def normal_edges(rows: int, gate: Gate) -> Float[Tensor, " edge"]:
    """Standard normal quantiles that bound `rows` equally likely bins; the upper ones only where the gate has one."""
    inner = torch.special.ndtri(torch.arange(1, rows, dtype=torch.float64) / rows)
    ends = inner.new_full((1,), OUTERMOST)
    return torch.cat([-ends, inner, ends] if gate.closes_above else [-ends, inner])


def bin_rows(
    direction: Float[Tensor, " feature"], edges: Float[Tensor, " edge"], gate: Gate, gain: float
) -> tuple[Float[Tensor, "row feature"], Float[Tensor, " row"]]:
    """Weights and biases of rows that fire above their edge or, behind a gate that closes above, within their bin."""
    if not gate.closes_above:
        return gain * direction.expand(len(edges), -1), -gain * edges
    steepness = (gate.high - gate.low) / edges.diff().clamp_min(1e-9)
    return steepness[:, None] * direction, gate.low - steepness * edges[:-1]


def reading_columns(
    readers: int, rows: int, gate: Gate, size: float, generator: torch.Generator, loud: float = 1.0
) -> Float[Tensor, "reader row"]:
    """Weights of the next layer that send a gradient to every row; `size` is what rows typically pass on.

    Rows that are subtracted from each other must be weighed alike; together they pass on numbers of the order of one.
    Rows that are read alone may alternate in sign, so that neighbours cancel in the prediction and their gradients can
    be large; `loud` enlarges those.
    """
    column = torch.randn(readers, 1, generator=generator, dtype=torch.float64)
    if gate.closes_above:
        return loud * column * (1.0 - 2.0 * (torch.arange(rows, dtype=torch.float64) % 2))
    return (column / (rows * size)).expand(-1, rows)


def loudness(local: LocalTraining) -> float:
    """What outweighs a small learning rate, where the server sees parameters before and after rather than a gradient.

    The step of a row is to be large against the rounding of its own weights.
    """
    return 1.0 if local.sends == "gradient" else max(1.0, ORDINARY_RATE / local.learning_rate)


def separate(
    weight: Float[Tensor, "row feature"], bias: Float[Tensor, " row"], planted: Float[Tensor, " row"], gate: Gate
) -> tuple[Float[Tensor, "bin feature"], Float[Tensor, " bin"]]:
    """Gradients of each bin alone: a row's own, or those minus the ones of the row with the next higher edge.

    `planted` are the rows' biases in the model that was sent.
    """
    if gate.closes_above:
        return weight, bias
    order = planted.argsort(descending=True, stable=True)
    weight, bias = weight[order], bias[order]
    return (
        weight - torch.cat([weight[1:], weight.new_zeros(1, weight.shape[1])]),
        bias - torch.cat([bias[1:], bias.new_zeros(1)]),
    )
