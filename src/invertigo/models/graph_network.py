"""What every graph network here is made of: message-passing layers, a read-out of each node, and a mean over nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.domains.graph_step import graph_step
from invertigo.models.graph_layers import GraphAttention, GraphConvolution, mean_over_nodes
from invertigo.models.layers import choose, one_of, positive
from invertigo.types import Domain, Task


class GraphNetwork(nn.Module):
    r"""$H_l = \sigma(\mathrm{layer}_l(H_{l-1}))$, no activation after the last layer; $\ell_i = \mathrm{readout}(r_i)$.

    Args:
        layers: message passing, first to last.
        activation: $\sigma$.
        readout: linear layers and activations on one row.
        concatenate: $r_i = [x_i \mid e_i]$, a node's input beside its embedding; else $r_i = e_i$.
        level: `graph` answers with the mean of $\ell_i$ over the nodes; `node` with every $\ell_i$.
        pool_first: read out the mean embedding of the graph instead of every node (common outside the paper).
    """

    def __init__(
        self,
        layers: Sequence[GraphConvolution | GraphAttention],
        activation: nn.Module,
        readout: nn.Sequential,
        *,
        concatenate: bool = False,
        level: str = "graph",
        pool_first: bool = False,
    ) -> None:
        super().__init__()
        one_of("level", level, ("graph", "node"))
        one_of("pool_first", pool_first, (False,) if level == "node" else (False, True))
        self.layers = nn.ModuleList(layers)
        self.activation, self.readout = activation, readout
        self.concatenate, self.level, self.pool_first = concatenate, level, pool_first

    @property
    def message_layers(self) -> list[GraphConvolution | GraphAttention]:
        """The layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, GraphConvolution | GraphAttention)]

    def forward(
        self,
        features: Float[Tensor, "graphs node feature"],
        adjacency: Float[Tensor, "graphs node node"],
        present: Bool[Tensor, "graphs node"],
    ) -> Tensor:
        """Logits (graph, class), or (graph, node, class) when `level` is `node`; absent nodes then get zeros."""
        hidden = features
        for number, layer in enumerate(self.layers):
            hidden = layer(self.activation(hidden) if number else hidden, adjacency)
        rows = torch.cat([features, hidden], -1) if self.concatenate else hidden
        if self.pool_first:
            return self.readout(mean_over_nodes(rows, present))
        logits = self.readout(rows)
        if self.level == "node":
            return logits * present[..., None].to(logits.dtype)
        return mean_over_nodes(logits, present)


def node_readout(inputs: int, hidden: Sequence[int], num_classes: int, activation: Callable[[], nn.Module]):
    """Linear layers of these widths, each followed by an activation, and one to the classes."""
    positive(**{f"readout[{number}]": width for number, width in enumerate(hidden)})
    parts: list[nn.Module] = []
    for width in hidden:
        parts += [nn.Linear(inputs, width), activation()]
        inputs = width
    return nn.Sequential(*parts, nn.Linear(inputs, num_classes))


def one_hot_bce(logits: Float[Tensor, "*rows label"], labels: Tensor) -> Float[Tensor, ""]:
    """Binary cross-entropy of every class against the one-hot label, averaged over both: the loss of GRAIN's code."""
    return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, logits.shape[-1]).to(logits.dtype))


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": F.cross_entropy, "bce": one_hot_bce}


def graph_task(model: nn.Module, domain: Domain, num_classes: int, *, loss: str = "cross_entropy") -> Task:
    """The training step of a graph network: one label a graph, or one a node where the labels are (graph, node).

    Args:
        loss: `cross_entropy`, or `bce` on one-hot labels.
    """
    measure = choose("loss", loss, LOSSES)
    return Task(model, measure, domain, num_classes, graph_step(measure))
