"""What a message-passing layer makes of one node and a multiset of neighbours, as sums that can be shared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from invertigo.attacks.exact.grain.colours import Colours
from invertigo.models.graph_layers import GraphAttention, GraphConvolution

Centres = int | Int[Tensor, " row"]
"""One centre, or one for each row."""


@dataclass(frozen=True)
class Convolved:
    r"""A convolution: $\frac{1}{\sqrt{d+1}} \big( s_o + \sum_j s_j \big) + b$ with $s_v = W h_v / \sqrt{d_v + 1}$.

    `columns` are the outputs that are computed; a few are enough to rule most candidates out.
    """

    scaled: Float[Tensor, "colour column"]
    degrees: Int[Tensor, " colour"]
    bias: Float[Tensor, " column"] | None

    @classmethod
    def prepare(cls, layer: GraphConvolution, colours: Colours) -> Convolved:
        """The layer's view of every colour."""
        degrees = torch.tensor(colours.degrees, dtype=torch.long)
        weight = layer.weight.detach()
        scaled = (colours.rows @ weight.T) * (degrees.double() + 1).rsqrt()[:, None]
        return cls(scaled, degrees, None if layer.bias is None else layer.bias.detach())

    def only(self, columns: Tensor) -> Convolved:
        """The same layer with these outputs only."""
        return Convolved(self.scaled[:, columns], self.degrees, None if self.bias is None else self.bias[columns])

    def parts(self, centres: Centres, colours: Tensor) -> Float[Tensor, "colour part"]:
        """What each neighbour (or the centre) adds to the sum around its centre."""
        return self.scaled[colours]

    def finish(self, centres: Centres, sums: Float[Tensor, "row part"]) -> Float[Tensor, "row column"]:
        """The layer's output from the sums over a centre and its neighbours."""
        mixed = sums * (self.degrees[centres] + 1).to(sums).rsqrt()[..., None]
        return mixed if self.bias is None else mixed + self.bias


@dataclass(frozen=True)
class Attended:
    r"""Attention: $\sum_j w_{oj} W h_j \big/ \sum_j w_{oj}$ with $w_{oj} = \exp \mathrm{LeakyReLU}(s_o + t_j)$; both
    sums are additive over the neighbours, so a part holds both."""

    layer: GraphAttention
    messages: Float[Tensor, "colour joined column"]
    own: Float[Tensor, "colour head"]
    other: Float[Tensor, "colour head"]
    skipped: Float[Tensor, "colour output"]
    joined: Tensor | None
    heads: Tensor | None

    @classmethod
    def prepare(cls, layer: GraphAttention, colours: Colours) -> Attended:
        """The layer's view of every colour."""
        rows, shape = colours.rows, layer.own.shape[-2:]
        with torch.no_grad():
            messages = layer.linear(rows).unflatten(-1, shape)
            own = (messages * layer.own).sum(-1)
            other = (messages * layer.other).sum(-1)
            skipped = layer.finish(torch.zeros_like(messages), rows)
        return cls(layer, messages, own, other, skipped, None, None)

    def only(self, columns: Tensor) -> Attended:
        """The same layer with these outputs only."""
        width = self.messages.shape[-1]
        if self.layer.concatenate:
            heads, within = columns // width, columns % width
            messages = self.messages[:, heads, within][:, None]
            return Attended(self.layer, messages, self.own, self.other, self.skipped[:, columns], columns, heads)
        messages = self.messages[..., columns]
        return Attended(self.layer, messages, self.own, self.other, self.skipped[:, columns], columns, None)

    def parts(self, centres: Centres, colours: Tensor) -> Float[Tensor, "colour part"]:
        """The weights of each neighbour (or the centre) around its centre, and its weighted messages."""
        weights = F.leaky_relu(self.own[centres] + self.other[colours], self.layer.slope).exp()
        spread = weights[:, self.heads][:, None] if self.heads is not None else weights[..., None]
        return torch.cat([weights, (spread * self.messages[colours]).flatten(1)], 1)

    def finish(self, centres: Centres, sums: Float[Tensor, "row part"]) -> Float[Tensor, "row column"]:
        """The layer's output from the sums over a centre and its neighbours."""
        count = self.own.shape[1]
        weights, mixed = sums[:, :count], sums[:, count:]
        if self.heads is not None:
            return mixed / weights[:, self.heads] + self.skipped[centres]
        mixed = mixed.unflatten(1, (count, -1)) / weights[..., None]
        joined = mixed.flatten(1) if self.layer.concatenate else mixed.mean(1)
        return joined + self.skipped[centres]


def prepare(layer: GraphConvolution | GraphAttention, colours: Colours) -> Convolved | Attended:
    """A layer's view of every colour."""
    if isinstance(layer, GraphConvolution):
        return Convolved.prepare(layer, colours)
    return Attended.prepare(layer, colours)
