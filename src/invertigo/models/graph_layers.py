"""Layers that pass messages along the edges of a graph, in their dense reference form."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


def normalised_adjacency(
    adjacency: Float[Tensor, "*graphs node node"],
) -> Float[Tensor, "*graphs node node"]:
    r"""$\hat A = D^{-1/2} (A + I) D^{-1/2}$ with $D$ the row sums of $A + I$; an isolated node keeps itself only.

    Source: Kipf and Welling (2017), section 2.
    """
    looped = adjacency + torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
    scale = looped.sum(-1).rsqrt()
    return scale[..., :, None] * looped * scale[..., None, :]


class GraphConvolution(nn.Module):
    r"""$H' = \hat A H W^T + b$.

    Args:
        linear: holds $W$ (out, in) and nothing else; another module's layer may be handed in, and is then shared.
        bias: $b$ (out,), added after the propagation as PyTorch Geometric does, or None.
    """

    def __init__(self, linear: nn.Module, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.linear = linear
        self.bias = bias

    @classmethod
    def of_width(cls, inputs: int, outputs: int, *, bias: bool = False) -> GraphConvolution:
        """A new layer with Glorot-uniform weights and, if asked for, a zero bias."""
        linear = nn.Linear(inputs, outputs, bias=False)
        nn.init.xavier_uniform_(linear.weight)
        return cls(linear, nn.Parameter(torch.zeros(outputs)) if bias else None)

    @property
    def weight(self) -> Tensor:
        """$W$."""
        weight = self.linear.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(
        self, features: Float[Tensor, "graphs node in"], adjacency: Float[Tensor, "graphs node node"]
    ) -> Float[Tensor, "graphs node out"]:
        """New features of every node; `adjacency` holds zeros and ones, without self-loops."""
        mixed = normalised_adjacency(adjacency) @ self.linear(features)
        return mixed if self.bias is None else mixed + self.bias


class GraphAttention(nn.Module):
    r"""Heads of $h'_i = \sum_{j \in N(i) \cup i} \alpha_{ij} W h_j$ with
    $\alpha_{ij} = \mathrm{softmax}_j\, \mathrm{LeakyReLU}(s \cdot W h_i + t \cdot W h_j)$, plus skip and bias.

    Args:
        linear: $W$ of all heads (heads * out, in), without a bias.
        own, other: $s$ and $t$ (..., head, out): what a node and its neighbour add to the score of an edge.
        skip: a linear layer of the node's own input, or None; with heads * out outputs it is joined like the heads.
        bias: (heads * out,) when heads are concatenated, (out,) when they are averaged; or None.
        concatenate: put the heads beside each other; else take their mean.

    Source: Velickovic et al. (2018), equations 1-6.
    """

    def __init__(
        self,
        linear: nn.Module,
        own: nn.Parameter,
        other: nn.Parameter,
        *,
        skip: nn.Module | None = None,
        bias: nn.Parameter | None = None,
        concatenate: bool = True,
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.linear, self.skip = linear, skip
        self.own, self.other, self.bias = own, other, bias
        self.concatenate, self.slope = concatenate, slope

    @classmethod
    def of_width(
        cls, inputs: int, outputs: int, *, heads: int = 2, concatenate: bool = True, skip: bool = True
    ) -> GraphAttention:
        """A new layer with Glorot-uniform weights and a zero bias; `outputs` is the width after joining the heads."""
        width = outputs // heads if concatenate else outputs
        linears = [nn.Linear(inputs, heads * width, bias=False) for _ in range(2 if skip else 1)]
        scores = [nn.Parameter(torch.empty(heads, width)) for _ in range(2)]
        for weight in (*(linear.weight for linear in linears), *scores):
            nn.init.xavier_uniform_(weight)
        bias = nn.Parameter(torch.zeros(heads * width if concatenate else width))
        return cls(linears[0], *scores, skip=linears[1] if skip else None, bias=bias, concatenate=concatenate)

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.own.shape[-2]

    @property
    def weight(self) -> Tensor:
        """$W$."""
        weight = self.linear.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(
        self, features: Float[Tensor, "graphs node in"], adjacency: Float[Tensor, "graphs node node"]
    ) -> Float[Tensor, "graphs node out"]:
        """New features of every node; `adjacency` holds zeros and ones, without self-loops.

        Between zero and one, as attacks relax it, an entry scales the weight of its edge before the softmax.
        """
        messages = self.linear(features).unflatten(-1, self.own.shape[-2:])
        scores = (messages * self.own).sum(-1)[:, :, None] + (messages * self.other).sum(-1)[:, None]
        looped = adjacency + torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
        scores = F.leaky_relu(scores, self.slope) + _log(looped)[..., None]
        attention = scores.softmax(2)
        return self.finish(torch.einsum("gijh,gjhc->gihc", attention, messages), features)

    def finish(self, mixed: Float[Tensor, "*nodes head out"], features: Float[Tensor, "*nodes in"]) -> Tensor:
        """Join the heads' weighted messages, and add what a node's own input and the bias contribute."""
        joined = self._join(mixed)
        if self.skip is not None:
            own = self.skip(features)
            joined = joined + (own if own.shape == joined.shape else self._join(own.unflatten(-1, mixed.shape[-2:])))
        return joined if self.bias is None else joined + self.bias

    def _join(self, parts: Float[Tensor, "*nodes head out"]) -> Float[Tensor, "*nodes joined"]:
        return parts.flatten(-2) if self.concatenate else parts.mean(-2)


def _log(looped: Tensor) -> Tensor:
    """The logarithm, of zero minus infinity, with no derivative there: zero times infinity would be no number."""
    return torch.where(looped > 0, looped, torch.ones_like(looped)).log().masked_fill(looped <= 0, -math.inf)


def mean_over_nodes(
    values: Float[Tensor, "graphs node value"], present: Bool[Tensor, "graphs node"]
) -> Float[Tensor, "graphs value"]:
    """The mean over the nodes that are there; padding does not count."""
    weight = present.to(values.dtype)[..., None]
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1.0)
