"""Read-outs of the mean embedding of a graph: neighbourhoods counted in the gradient of the layer before the last."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invertigo.attacks.exact.grain.anatomy import Anatomy, linears
from invertigo.attacks.exact.grain.blocks import Check
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.colours import Colours
from invertigo.attacks.exact.grain.larger_blocks import around_each
from invertigo.attacks.exact.grain.mixing import Convolved
from invertigo.attacks.exact.grain.multisets import fillings, ways
from invertigo.attacks.exact.grain.nodes import TooMany
from invertigo.models.graph_layers import GraphConvolution

MOST_WAYS = 3_000_000
MOST_KEPT = 60_000
SURE = 1e-4
"""Part of the largest hidden feature by which rounding may lift one."""
FEW = 40
"""Units, the least active ones, that a candidate is checked at first."""


@dataclass(frozen=True)
class Pool:
    r"""What one gradient shows of the mean over a graph's nodes.

    With $u_j$ the neighbourhood mean that the last layer but one reads at node $j$, $z_j = W u_j + b$, $h_j =
    \sigma(z_j)$, and $s_j = \sum_i \hat A_{ij}$, a pooled embedding $e = W' \frac1n \sum_j s_j h_j$ gives

    $$\nabla_W L = \tfrac1n \sum_j s_j \big( q \odot \sigma'(z_j) \big) u_j^T, \qquad q = W'^T \partial L/\partial e.$$

    Args:
        pull: $q$.
        slopes: $\nabla_W L$ in the coordinates of the row space, beside $\nabla_b L$ where there is a bias.
        hidden: $\frac1n \sum_j s_j h_j$, read off the last layer's gradient, which has rank one.
        features: the mean node features, where the read-out reads them.
    """

    pull: Float[Tensor, " unit"]
    slopes: Float[Tensor, "unit coordinate"]
    hidden: Float[Tensor, " unit"]
    features: Float[Tensor, " column"] | None


@dataclass(frozen=True)
class Blocks:
    r"""Neighbourhoods that there may be: coordinates of $u_j$ (and a 1 for a bias), $h_j$, $\sigma'(z_j)$, $s_j$."""

    own: list[int]
    around: list[tuple[int, ...]]
    inputs: Float[Tensor, "block coordinate"]
    hidden: Float[Tensor, "block unit"]
    slopes: Float[Tensor, "block unit"]
    weight: Float[Tensor, " block"]
    features: Float[Tensor, "block column"]

    def __len__(self) -> int:
        return len(self.own)


def read_pool(anatomy: Anatomy, scores: Tensor) -> Pool | str:
    """What is seen of the pooled graph, or why it is not."""
    last, before = (anatomy.model.message_layers[-1], anatomy.model.message_layers[-2:][0])
    if anatomy.depth < 2 or not isinstance(last, GraphConvolution) or not isinstance(before, GraphConvolution):
        return "behind a read-out of the mean embedding only graph convolutions, two or more, show single nodes."
    head = linears(anatomy.model.readout)[0]
    weight, bias = anatomy.gradient(head.weight), None if head.bias is None else anatomy.gradient(head.bias)
    if weight is None or bias is None or not bool(bias.any()):
        return "the first layer of the read-out shows no gradient of its bias, which the scale of the mean needs."
    pooled = (weight.T @ bias) / bias.square().sum()
    if float((weight - torch.outer(bias, pooled)).norm()) > 1e-4 * float(weight.norm()):
        return "the read-out's gradient has a rank over one, so it is that of several graphs, or a noisy one."
    with torch.enable_grad():
        row = pooled.clone().requires_grad_()
        (pushed,) = torch.autograd.grad((anatomy.model.readout(row[None])[0] * scores).sum(), row)
    embedded = pushed[-last.weight.shape[0] :]
    summed = anatomy.gradient(last.weight)
    first, shown = anatomy.gradient(before.weight), anatomy.spans[anatomy.depth - 2]
    assert summed is not None
    assert first is not None
    slopes = first @ shown.basis.T
    shift = None if before.bias is None else anatomy.gradient(before.bias)
    if shift is not None:
        slopes = torch.cat([slopes, shift[:, None]], 1)
    return Pool(
        embedded @ last.weight.detach(),
        slopes,
        summed.T @ embedded / embedded.square().sum(),
        pooled[: len(pooled) - len(embedded)] if anatomy.model.concatenate else None,
    )


def blocks_of_pool(
    anatomy: Anatomy, pool: Pool, before: Colours, features: Tensor, most_nodes: int, budget: Budget
) -> Blocks | None:
    """All neighbourhoods that the pooled hidden features allow. Raises: TooMany.

    No row space tells them apart, for the last layer's has one dimension. But the units of a ReLU are not
    negative, so that none is more at a node than its mean times the number of nodes, `most_nodes` at most.
    """
    space = anatomy.spans[anatomy.depth - 2]
    degrees = torch.tensor(before.degrees, dtype=torch.float64)
    scale = (degrees + 1).rsqrt()
    parts = torch.cat([before.rows @ space.basis.T * scale[:, None], scale[:, None]], 1)
    mixer = Convolved(parts, torch.tensor(before.degrees), None)
    check = Check(space, mixer, anatomy.model.activation, None, space.tolerance, None)
    limits = _limits(anatomy, pool, most_nodes)
    made: list[Blocks] = []
    tried = kept = 0
    for centre, groups in around_each(check, before):
        tried += ways(groups)
        if tried > MOST_WAYS:
            raise TooMany(f"more than {MOST_WAYS} neighbourhoods behind one mean embedding")
        kind = features[before.kinds[centre]]
        for chosen, sums in fillings(groups, mixer.parts(centre, torch.tensor([centre]))[0]):
            budget.spend(len(chosen))
            made.append(_passing(anatomy, limits, (centre, kind), chosen, sums * float(scale[centre])))
            kept += len(made[-1])
            if kept > MOST_KEPT:
                raise TooMany(f"more than {MOST_KEPT} neighbourhoods fit one mean embedding")
    return _joined(made) if made else None


def _passing(
    anatomy: Anatomy,
    limits: Float[Tensor, " unit"],
    centre: tuple[int, Tensor],
    chosen: Tensor,
    mixed: Float[Tensor, "row part"],
) -> Blocks:
    """The candidates around one centre whose units stay under the limits, the lowest of which are looked at first."""
    layer = anatomy.model.message_layers[-2]
    assert isinstance(layer, GraphConvolution)
    weight = anatomy.spans[anatomy.depth - 2].basis @ layer.weight.detach().T
    shift = limits.new_zeros(len(limits)) if layer.bias is None else layer.bias.detach()
    inputs, spread, few = mixed[:, :-1], mixed[:, -1:], limits.argsort()[:FEW]
    for units in (few, slice(None)):
        values = inputs @ weight[:, units] + shift[units]
        fine = (values * spread <= limits[units]).all(1).nonzero()[:, 0]
        inputs, spread, chosen, values = inputs[fine], spread[fine], chosen[fine], values[fine]
    if layer.bias is not None:
        inputs = torch.cat([inputs, torch.ones_like(spread)], 1)
    hidden, slopes = _activated(anatomy.model.activation, values)
    around = [tuple(sorted(c)) for c in chosen.tolist()]
    kinds = centre[1].expand(len(inputs), -1)
    return Blocks([centre[0]] * len(inputs), around, inputs, hidden, slopes, spread[:, 0], kinds)


def _joined(parts: list[Blocks]) -> Blocks:
    own = [o for part in parts for o in part.own]
    around = [a for part in parts for a in part.around]
    names = ("inputs", "hidden", "slopes", "weight", "features")
    return Blocks(own, around, *(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _activated(activation: nn.Module, values: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        inputs = values.detach().requires_grad_()
        outputs = activation(inputs)
        (slopes,) = torch.autograd.grad(outputs.sum(), inputs)
    return outputs.detach(), slopes


def _limits(anatomy: Anatomy, pool: Pool, most_nodes: int) -> Float[Tensor, " unit"]:
    """The most that a unit can be at a node over the node's `s_j`: of a mean of numbers that are not negative, all."""
    if isinstance(anatomy.model.activation, nn.ReLU):
        return most_nodes * pool.hidden.clamp_min(0) + SURE * pool.hidden.max()
    return torch.full_like(pool.hidden, torch.inf)


def pooled_colours(before: Colours, blocks: Blocks, members: list[int]) -> Colours:
    """The blocks found, as colours."""
    own = [blocks.own[m] for m in members]
    return Colours(
        blocks.hidden[members],
        tuple(before.degrees[o] for o in own),
        tuple(before.kinds[o] for o in own),
        tuple(own),
        tuple(blocks.around[m] for m in members),
    )
