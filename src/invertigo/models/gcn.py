"""Graph convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from invertigo.models.building import registry
from invertigo.models.graph_layers import GraphConvolution
from invertigo.models.graph_network import GraphNetwork, node_readout
from invertigo.models.layers import activation as make_activation
from invertigo.models.layers import positive
from invertigo.types import Paper


@registry.register("gcn")
class GCN(GraphNetwork):
    """Graph convolutions, then a read-out of every node beside its input features, then the mean over nodes.

    Args:
        hidden: Width of every graph convolution.
        layers: Number of graph convolutions.
        activation: Between the convolutions and in the read-out.
        readout: Widths of the read-out's hidden layers; None for (hidden, 64), the paper's.
        concatenate: Read a node's input features beside its embedding.
        bias: Whether the convolutions have biases; the paper's have none.
        level: `graph` for one answer a graph, `node` for one a node.

    Source: Kipf and Welling (2017); the read-out is the one that GRAIN attacks (Drencheva et al., 2025).
    """

    paper = Paper(
        key="kipf2017semi",
        title="Semi-Supervised Classification with Graph Convolutional Networks",
        authors="Kipf, Thomas N. and Welling, Max",
        year=2017,
        venue="International Conference on Learning Representations",
        arxiv="1609.02907",
    )
    domain = "graphs"

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        hidden: int = 300,
        layers: int = 2,
        activation: str = "relu",
        readout: Sequence[int] | None = None,
        concatenate: bool = True,
        bias: bool = False,
        level: str = "graph",
    ) -> None:
        positive(hidden=hidden, layers=layers)
        width = input_shape[-1]
        inputs = [width, *[hidden] * (layers - 1)]
        super().__init__(
            [GraphConvolution.of_width(size, hidden, bias=bias) for size in inputs],
            make_activation(activation),
            node_readout(
                hidden + width * concatenate,
                (hidden, 64) if readout is None else readout,
                num_classes,
                lambda: make_activation(activation),
            ),
            concatenate=concatenate,
            level=level,
        )
