"""Graph attention network."""

from __future__ import annotations

from collections.abc import Sequence

from invertigo.models.building import registry
from invertigo.models.graph_layers import GraphAttention
from invertigo.models.graph_network import GraphNetwork, node_readout
from invertigo.models.layers import activation as make_activation
from invertigo.models.layers import positive
from invertigo.types import InvalidValueError, Paper


@registry.register("gat")
class GAT(GraphNetwork):
    """Graph attention with skip connections, then a read-out of every node, then the mean over nodes.

    Args:
        hidden: Width after every attention layer; heads share it, and are averaged in the last layer.
        layers: Number of attention layers.
        heads: Attention heads of each layer.
        activation: Between the layers and in the read-out.
        readout: Widths of the read-out's hidden layers; None for (hidden, 64).
        skip: Whether every layer adds a linear map of the node's own input.
        concatenate: Read a node's input features beside its embedding.
        level: `graph` for one answer a graph, `node` for one a node.

    Source: Velickovic et al. (2018), in the form that GRAIN attacks (Drencheva et al., 2025).
    """

    paper = Paper(
        key="velickovic2018graph",
        title="Graph Attention Networks",
        authors="Veli{\\v{c}}kovi{\\'c}, Petar and Cucurull, Guillem and Casanova, Arantxa and Romero, Adriana and "
        "Li{\\`o}, Pietro and Bengio, Yoshua",
        year=2018,
        venue="International Conference on Learning Representations",
        arxiv="1710.10903",
    )
    domain = "graphs"

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        hidden: int = 300,
        layers: int = 2,
        heads: int = 2,
        activation: str = "elu",
        readout: Sequence[int] | None = None,
        skip: bool = True,
        concatenate: bool = False,
        level: str = "graph",
    ) -> None:
        positive(hidden=hidden, layers=layers, heads=heads)
        if layers > 1 and hidden % heads:
            raise InvalidValueError(f"hidden is {hidden}, which {heads} heads cannot share; choose a multiple.")
        width = input_shape[-1]
        inputs = [width, *[hidden] * (layers - 1)]
        super().__init__(
            [
                GraphAttention.of_width(size, hidden, heads=heads, concatenate=number < layers - 1, skip=skip)
                for number, size in enumerate(inputs)
            ],
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
