"""A user's PyTorch Geometric layers, run in the dense form that audits read. The parameters are shared, not copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from invertigo.models.graph_layers import GraphAttention, GraphConvolution
from invertigo.models.graph_network import GraphNetwork
from invertigo.types import InvalidValueError


def from_geometric(
    layers: Sequence[Any],
    readout: nn.Module,
    *,
    activation: nn.Module,
    concatenate: bool = False,
    level: str = "graph",
    pool_first: bool = True,
) -> GraphNetwork:
    """A graph network of `GCNConv` and `GATConv` layers whose parameters are those very layers' own.

    Train either one: the other follows. Dropout between layers is not run.

    Args:
        layers: PyTorch Geometric layers, first to last; `activation` stands between them, none after the last.
        readout: what follows the layers: an `nn.Linear`, or an `nn.Sequential` of them with activations.
        pool_first: `global_mean_pool` comes before the read-out (usual); False reads out every node, then averages.
        concatenate, level: see `GraphNetwork`.

    Raises: InvalidValueError for a layer, or an option of one, that has no dense form here.
    """
    head = readout if isinstance(readout, nn.Sequential) else nn.Sequential(readout)
    return GraphNetwork(
        [_dense(layer) for layer in layers],
        activation,
        head,
        concatenate=concatenate,
        level=level,
        pool_first=pool_first and level == "graph",
    )


def _dense(layer: Any) -> GraphConvolution | GraphAttention:
    kind = type(layer).__name__
    if kind not in ("GCNConv", "GATConv"):
        raise InvalidValueError(f"A {kind} has no dense form here; GCNConv and GATConv have.")
    if not layer.add_self_loops or getattr(layer, "improved", False) or not getattr(layer, "normalize", True):
        raise InvalidValueError(
            f"This {kind} changes how a node counts itself (add_self_loops, improved or normalize); "
            "only the published form, with one self-loop a node and symmetric normalisation, is read."
        )
    if kind == "GCNConv":
        return GraphConvolution(layer.lin, layer.bias)
    if layer.lin is None or layer.edge_dim is not None or layer.dropout:
        raise InvalidValueError("A GATConv is read with one linear map, without edge features and without dropout.")
    return GraphAttention(
        layer.lin,
        layer.att_dst,
        layer.att_src,
        skip=getattr(layer, "res", None),
        bias=layer.bias,
        concatenate=layer.concat,
        slope=layer.negative_slope,
    )


def refuse_geometric(model: nn.Module) -> None:
    """Refuse a model of PyTorch Geometric layers, which reads edge lists. Raises: InvalidValueError."""
    if isinstance(model, GraphNetwork):
        return
    found = next(((n, m) for n, m in model.named_modules() if type(m).__module__.startswith("torch_geometric.")), None)
    if found is not None:
        name, layer = found
        raise InvalidValueError(
            f"'{name}' is a {type(layer).__name__} of PyTorch Geometric, which reads lists of edges; audits read dense "
            "graphs. Hand the model's layers to invertigo.models.from_geometric(layers, readout, activation=...): the "
            "network that comes back shares their parameters and computes the same."
        )
