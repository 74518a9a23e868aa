"""Is this a batch of graphs that can be audited? What cannot be is refused with the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from invertigo.types import Batch, InvalidValueError, MismatchError

if TYPE_CHECKING:
    from invertigo.domains.graphs import Graphs

_ROUNDING = 1e-3


def remarks(domain: Graphs, batch: Batch) -> list[str]:
    """What a reader should know of the graphs; see `Graphs.validate`."""
    missing = [name for name in domain.reads if name not in batch.fields]
    if missing:
        raise MismatchError(
            f"The batch of graphs lacks {', '.join(map(repr, missing))}; it holds {list(batch.fields)}. "
            "Models of graphs are called as model(features, adjacency, present)."
        )
    features, adjacency, present = (batch[name].detach().cpu() for name in domain.reads)
    graphs = domain.decode(batch.fields, "batch")  # refuses misshapen fields
    _check_nodes(present)
    _check_edges(adjacency.double(), present)
    _check_features(domain, features.double(), present)
    found = []
    lonely = sum(any(not near for near in graph.neighbours) for graph in graphs)
    if lonely:
        found.append(f"{lonely} of {len(graphs)} graphs have nodes without any edge (ions, single nodes).")
    parts = sum(_components(graph.neighbours) > 1 for graph in graphs)
    if parts:
        found.append(f"{parts} of {len(graphs)} graphs consist of several components (salts, mixtures).")
    return found


def _check_nodes(present: Tensor) -> None:
    if not bool(present.any(1).all()):
        empty = int((~present.any(1)).nonzero()[0])
        raise InvalidValueError(f"Graph {empty} has no node, so there is nothing private in it; leave it out.")


def _check_edges(adjacency: Tensor, present: Tensor) -> None:
    loops = adjacency.diagonal(dim1=1, dim2=2).nonzero()
    if len(loops):
        graph, node = loops[0].tolist()
        raise InvalidValueError(
            f"Graph {graph} has a self-loop at node {node} ({len(loops)} in all). Models add their own self-loops, so "
            "these would be counted twice: remove them with adjacency.diagonal(dim1=1, dim2=2).zero_()."
        )
    one_way = (adjacency != adjacency.mT).nonzero()
    if len(one_way):
        graph, a, b = one_way[0].tolist()
        raise InvalidValueError(
            f"Graph {graph} has an edge from node {a} to {b} that does not lead back. Only undirected graphs are "
            "understood: use torch.maximum(adjacency, adjacency.mT)."
        )
    other = adjacency[(adjacency != 0) & (adjacency != 1)]
    if len(other):
        raise InvalidValueError(
            f"An edge has the weight {other[0].item():.4g}; edges are there (1) or not (0). Leave weights out."
        )
    if bool((adjacency.sum(-1) > 0)[~present].any()):
        raise InvalidValueError("A place without a node (present is False) has an edge; set its row and column to 0.")


def _check_features(domain: Graphs, features: Tensor, present: Tensor) -> None:
    if bool(features[~present].any()):
        raise InvalidValueError("A place without a node (present is False) has features; set its row to 0.")
    rows = features[present]
    off = (domain.from_model(rows) - domain.one_hot(domain.choices(rows)).double()).abs() > _ROUNDING
    if not bool(off.any()):
        return
    row, column = off.nonzero()[0].tolist()
    block = next(i for i, part in enumerate(domain.columns) if part.start <= column < part.stop)
    values = domain.from_model(rows)[row, domain.columns[block]].tolist()
    shown = ", ".join(f"{v:.3g}" for v in values[:6]) + (", ..." if len(values) > 6 else "")
    raise InvalidValueError(
        f"Group {block} of a node's features ({domain.blocks[block]} columns from {domain.columns[block].start}) is "
        f"not one-hot: it reads {shown}. The candidates of an attack are made of one-hot groups, so check the widths "
        "in Graphs(blocks=...), give mean and std if features are standardised, and bin values that are continuous."
    )


def _components(neighbours: list[list[int]]) -> int:
    unseen, count = set(range(len(neighbours))), 0
    while unseen:
        count += 1
        stack = [unseen.pop()]
        while stack:
            near = unseen.intersection(neighbours[stack.pop()])
            unseen -= near
            stack += near
    return count
