"""Steps on graphs as `watch` sees them: what the model must read, and where the targets of single nodes belong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invertigo.federation.passes import Pass
from invertigo.models import GraphNetwork, refuse_geometric
from invertigo.types import Domain, InvalidValueError


def check_watchable(model: nn.Module, domain: Domain | None) -> None:
    """Refuse graph models of which a step cannot be read. Raises: InvalidValueError."""
    refuse_geometric(model)
    if domain is None and isinstance(model, GraphNetwork):
        raise InvalidValueError(
            "A graph network is watched with a domain that says what the feature columns are: "
            "watch(model, optimizer, loss_fn, domain=Graphs(blocks=...))."
        )


def check_graphs(passes: Sequence[Pass]) -> None:
    """Raises: InvalidValueError when the model was not called with features, adjacency and which nodes there are."""
    for read in passes:
        shapes = [tuple(tensor.shape) for tensor in (read.inputs, *read.others)]
        if [len(shape) for shape in shapes] != [3, 3, 2]:
            raise InvalidValueError(
                f"The watched model was called with tensors of shape {', '.join(map(str, shapes))}; a step on graphs "
                "calls model(features, adjacency, present) with (graph, node, column), (graph, node, node) and "
                "(graph, node). `Graphs.encode` makes them."
            )
    places = {read.inputs.shape[1] for read in passes}
    if len(places) > 1:
        raise InvalidValueError(
            f"The passes of this step hold graphs padded to {sorted(places)} nodes; pad all of them to the same number."
        )


def placed_targets(read: Pass) -> Tensor | None:
    """The targets of a pass; those of single nodes as (graph, node), with -1 where there is none."""
    target = read.target
    if target is None or target.ndim != 1 or len(target) == len(read.inputs):
        return target
    mask = next(mask for mask in read.others if mask.dtype == torch.bool and int(mask.sum()) == len(target))
    return target.new_full(mask.shape, -1).masked_scatter(mask, target)
