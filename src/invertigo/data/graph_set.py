"""Labelled graphs in memory, as every loader of graphs returns them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.domains import Graphs
from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.types import Batch, InvalidValueError, MismatchError, Paper


@dataclass(frozen=True)
class GraphSet:
    """Graphs with one label each, or one label a node.

    `blocks` are the widths of the one-hot groups of a node's features, `degree_block` the group that tells its degree.
    `labels` is (graph,), or (graph, node) with -1 where a graph has no more nodes. `names` says what each graph is, if
    anything. `skipped` counts rows of the file that could not be read, by reason. Otherwise as `ImageSet`.
    """

    name: str
    graphs: tuple[LabelledGraph, ...]
    labels: Int[Tensor, "graphs ..."]
    classes: tuple[str, ...]
    blocks: tuple[int, ...]
    degree_block: int | None = None
    names: tuple[str, ...] = ()
    skipped: Counter[str] | None = None
    bundled: bool = False
    licence: str = ""
    paper: Paper | None = None

    def __post_init__(self) -> None:
        if not self.graphs:
            raise InvalidValueError(f"The graph set '{self.name}' is empty; there is nothing to audit in it.")
        if len(self.graphs) != len(self.labels):
            raise MismatchError(f"'{self.name}' has {len(self.graphs)} graphs but {len(self.labels)} labels.")
        high = int(self.labels.max())
        if high >= len(self.classes) or int(self.labels.min()) < (-1 if self.labels.ndim > 1 else 0):
            raise InvalidValueError(
                f"Labels of '{self.name}' reach {high}, but it has {len(self.classes)} classes. Name all classes."
            )

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def shape(self) -> tuple[int, int]:
        """Nodes of the largest graph, and feature columns."""
        return max(map(len, self.graphs)), sum(self.blocks)

    @property
    def num_classes(self) -> int:
        """How many classes a model of these graphs tells apart."""
        return len(self.classes)

    def part(self, indices: Sequence[int] | Tensor) -> GraphSet:
        """The graphs at `indices`, in that order. Raises: InvalidValueError for an index that the set does not have."""
        wanted = [int(i) for i in indices]
        for i in wanted:
            if not -len(self) <= i < len(self):
                raise InvalidValueError(
                    f"'{self.name}' holds {len(self)} graphs, numbered 0 to {len(self) - 1}; it has no {i}."
                )
        return replace(
            self,
            graphs=tuple(self.graphs[i] for i in wanted),
            labels=self.labels[torch.tensor(wanted, dtype=torch.long)],
            names=tuple(self.names[i] for i in wanted) if self.names else (),
        )

    def others(self, indices: Sequence[int] | Tensor) -> GraphSet:
        """Everything but the graphs at `indices`. Raises: InvalidValueError when nothing is left."""
        out = {int(i) % len(self) for i in indices}
        return self.part([i for i in range(len(self)) if i not in out])

    def sized(self, least: int, most: int) -> GraphSet:
        """The graphs of `least` to `most` nodes. Raises: InvalidValueError when there are none."""
        kept = [i for i, graph in enumerate(self.graphs) if least <= len(graph) <= most]
        if not kept:
            sizes = sorted(map(len, self.graphs))
            raise InvalidValueError(
                f"No graph of '{self.name}' has {least} to {most} nodes; its graphs have {sizes[0]} to {sizes[-1]}."
            )
        return self.part(kept)

    def domain(self, *, nodes: int | None = None, standardise: bool = False) -> Graphs:
        """The domain of such graphs; `standardise` takes each column's mean and deviation over these nodes."""
        mean = std = None
        if standardise:
            rows = self.one_hot().double()
            mean, std = tuple(rows.mean(0).tolist()), tuple(rows.std(0, correction=0).tolist())
        return Graphs(self.blocks, nodes or self.shape[0], degree_block=self.degree_block, mean=mean, std=std)

    def one_hot(self) -> Float[Tensor, "node column"]:
        """Zeros and ones of all nodes of all graphs."""
        kinds = torch.cat([graph.kinds for graph in self.graphs])
        return Graphs(self.blocks).one_hot(kinds)

    def batch(self, indices: Sequence[int] | Tensor | None = None, domain: Graphs | None = None) -> Batch:
        """The graphs at `indices` (None: all) as a model of `domain` (None: unstandardised) reads them."""
        chosen = self if indices is None else self.part(indices)
        domain = domain or self.domain()
        fields = domain.encode(chosen.graphs)
        places, labels = fields["present"].shape[1], chosen.labels
        if labels.ndim > 1:
            labels = torch.nn.functional.pad(labels, (0, max(0, places - labels.shape[1])), value=-1)[:, :places]
        return Batch({**fields, "labels": labels})
