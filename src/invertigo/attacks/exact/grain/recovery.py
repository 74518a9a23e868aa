"""What the attack can say for certain about the graph behind a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class GraphRecovery:
    """How far the reconstruction of one graph (or one batch of graphs) goes, and what it rests on.

    Args:
        kind: `exact` when no other graph that the domain allows has this gradient, copies and covers included;
            `up to covers` when no other graph of as many nodes has it, while some with 2, 3, ... times as many have;
            `equivalent` when several graphs have it, or whether others have it was not decided; `partial` when no
            graph was completed.
        assumes: what the kind rests on, a sentence each. `exact` rests on what the domain says only.
        class_size: graphs found with the same gradient; `class_complete` tells that these are all, of any size that
            the domain allows.
        alternatives: the graphs of the class, likeliest first, each with `features` (node, column), `adjacency`
            (node, node): the first one is the reconstruction.
        certain_nodes: nodes of the reconstruction whose features are certain.
        nodes: number of nodes read off the gradient, None when it was not.
        label: of the graph, read off the sign of the loss.
        gradient_distance: relative distance between the reconstruction's gradient and the observed one.
        stages: CPU seconds of each stage; candidates: what passed each stage.
        labels, parts: of a batch of several graphs, the label of each and what is known of it; `alternatives` then
            holds the likeliest form of each graph.
        node_labels: of a model that answers every node, the labels of the nodes of each graph of the reconstruction.
        missed: of `partial`, that all candidates were gone through, so that true ones are not among them.
        ranks: rank of each row space, in the order of the layers, and the read-out's last; `confidence` of each.
    """

    kind: str
    class_size: int
    class_complete: bool
    alternatives: tuple[Mapping[str, Tensor], ...]
    certain_nodes: int
    nodes: int | None
    gradient_distance: float
    label: int | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    candidates: Mapping[str, int] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    reason: str = ""
    labels: tuple[int, ...] = ()
    parts: tuple[GraphRecovery, ...] = ()
    assumes: tuple[str, ...] = ()
    node_labels: tuple[tuple[int, ...], ...] = ()
    missed: bool = False
