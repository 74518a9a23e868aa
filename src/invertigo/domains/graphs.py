"""Private graphs: molecules, citations, social circles. How they are encoded, compared, recognised and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.domains.graph_baselines import BASELINES, guesses, without
from invertigo.domains.graph_checks import remarks
from invertigo.domains.graph_metrics import compare
from invertigo.domains.graph_pictures import draw
from invertigo.domains.graph_step import graph_step
from invertigo.domains.labelled_graph import LabelledGraph, likeness
from invertigo.domains.lineup import ranks_in_lineup
from invertigo.domains.matching import UNMATCHED, match
from invertigo.types import Batch, Identification, InvalidValueError, Metric, MismatchError, Scores

_METRICS = (
    Metric("gsm1", "GSM-1", True, "", "similarity of the nodes' neighbourhoods, 1 for the same graph"),
    Metric("exact", "Exact", True, "", "1 for a graph that is isomorphic with all node features"),
    Metric("gsm0", "GSM-0", True, "", "share of node features that agree"),
    Metric("gsm2", "GSM-2", True, "", "similarity of the nodes' two-step neighbourhoods"),
    Metric("nodes_precision", "Nodes, precision", True, "", "share of rebuilt nodes with all features right"),
    Metric("nodes_recall", "Nodes, recall", True, "", "share of true nodes rebuilt with all features right"),
    Metric("edges_precision", "Edges, precision", True, "", "share of rebuilt edges that are true"),
    Metric("edges_recall", "Edges, recall", True, "", "share of true edges that were rebuilt"),
)


@dataclass(frozen=True)
class Graphs:
    """Undirected graphs whose nodes carry one-hot groups, which the model reads as `(one_hot - mean) / std`.

    A batch has the fields `features` (graph, node, column), `adjacency` (graph, node, node; 0 or 1, symmetric, no
    self-loops), `present` (graph, node; False for padding, whose rows are 0) and `labels` (graph,).

    Args:
        blocks: widths of the one-hot groups, in the order of the columns. A group of width 1 is a yes or no (0 or 1).
        nodes: places for nodes in one example, padding included.
        vocabulary: (type, column) zeros and ones, the kinds of nodes that occur in public data; None: all there are.
        degree_block: the position in `blocks` of the group that tells a node's degree, if there is one.
        mean, std: one number a column, in the unit of the zeros and ones. A std of 0 (a column that is constant in
            public data) is read as 1, so that a value nobody has seen before stays visible.
    """

    blocks: tuple[int, ...]
    nodes: int = 64
    vocabulary: Tensor | None = field(default=None, compare=False, repr=False)
    degree_block: int | None = None
    mean: tuple[float, ...] | None = field(default=None, repr=False)
    std: tuple[float, ...] | None = field(default=None, repr=False)

    name: ClassVar[str] = "graphs"
    inputs: ClassVar[str] = "features"
    target: ClassVar[str] = "labels"
    reads: ClassVar[tuple[str, ...]] = ("features", "adjacency", "present")
    sizes: ClassVar[tuple[str, ...]] = ("present",)
    baseline_labels: ClassVar[Mapping[str, str]] = BASELINES

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(int(width) for width in self.blocks))
        if not self.blocks or min(self.blocks) < 1:
            raise InvalidValueError(f"Graphs.blocks is {self.blocks}; it must list the widths of the one-hot groups.")
        if self.nodes < 1:
            raise InvalidValueError(f"Graphs.nodes is {self.nodes}; a graph has at least one node.")
        if self.degree_block is not None and not 0 <= self.degree_block < len(self.blocks):
            raise InvalidValueError(
                f"Graphs.degree_block is {self.degree_block}, but there are {len(self.blocks)} blocks, counted from 0."
            )
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._per_column(name))
        if self.std is not None:
            object.__setattr__(self, "std", tuple(s if s > 0 else 1.0 for s in self.std))

    def step(self, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        """How a loss is taken of a batch of graphs: see `graph_step`."""
        return graph_step(loss)

    @property
    def width(self) -> int:
        """Number of feature columns."""
        return sum(self.blocks)

    @cached_property
    def columns(self) -> tuple[slice, ...]:
        """The columns of each one-hot group."""
        ends = torch.tensor(self.blocks).cumsum(0).tolist()
        return tuple(slice(end - width, end) for width, end in zip(self.blocks, ends))

    @cached_property
    def _single(self) -> tuple[Tensor, Tensor]:
        """Which groups are a yes or no (there may be thousands), and the first column of each group."""
        widths = torch.tensor(self.blocks)
        return widths == 1, widths.cumsum(0) - widths

    def to_model(self, one_hot: Float[Tensor, "*batch column"]) -> Float[Tensor, "*batch column"]:
        """From zeros and ones to what the model reads. Padding is the caller's to zero."""
        mean, std = self._standard(one_hot)
        return (one_hot - mean) / std

    def from_model(self, features: Float[Tensor, "*batch column"]) -> Float[Tensor, "*batch column"]:
        """From what the model reads to zeros and ones (not rounded): `x * std + mean`."""
        mean, std = self._standard(features)
        return features * std + mean

    def choices(self, features: Float[Tensor, "*batch column"]) -> Int[Tensor, "*batch block"]:
        """The member of each one-hot group that a row in model space is nearest to."""
        values = self.from_model(features)
        made = torch.empty(*values.shape[:-1], len(self.blocks), dtype=torch.long, device=values.device)
        single, starts = self._single
        made[..., single] = (values[..., starts[single]] > 0.5).long()
        for block in (~single).nonzero()[:, 0].tolist():
            made[..., block] = values[..., self.columns[block]].argmax(-1)
        return made

    def one_hot(self, choices: Int[Tensor, "*batch block"]) -> Float[Tensor, "*batch column"]:
        """Zeros and ones (float32) of the chosen member of each group."""
        made = torch.zeros(*choices.shape[:-1], self.width, device=choices.device)
        single, starts = (told.to(choices.device) for told in self._single)
        made[..., starts[single]] = choices[..., single].to(made)
        return made.scatter_(-1, starts[~single] + choices[..., ~single], 1.0)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Neighbourhood similarity first, then the exact graph."""
        return _METRICS

    @property
    def shape(self) -> tuple[int, int]:
        """Places for nodes, and feature columns."""
        return self.nodes, self.width

    def example_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """An attack rebuilds `features` and `adjacency`; which places are taken is told by `present`."""
        return {"features": (self.nodes, self.width), "adjacency": (self.nodes, self.nodes)}

    def bounds(self, name: str) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of a column as the model reads it, each (1, column); 0 and 1 for an edge."""
        ends = torch.zeros(1, self.width, dtype=torch.float64), torch.ones(1, self.width, dtype=torch.float64)
        if name == "features":
            return self.to_model(ends[0]), self.to_model(ends[1])
        if name == "adjacency":
            return ends[0][:, :1], ends[1][:, :1]
        raise InvalidValueError(f"Field '{name}' of graphs has no bounds; 'features' and 'adjacency' have.")

    def encode(self, graphs: Sequence[LabelledGraph], nodes: int | None = None) -> dict[str, Tensor]:
        """`features`, `adjacency` (float32) and `present` of graphs, padded to `nodes` places (None: `self.nodes`)."""
        places = max(nodes or self.nodes, *(len(graph) for graph in graphs))
        features = torch.zeros(len(graphs), places, self.width)
        adjacency = torch.zeros(len(graphs), places, places)
        present = torch.zeros(len(graphs), places, dtype=torch.bool)
        for i, graph in enumerate(graphs):
            n = len(graph)
            features[i, :n] = self.to_model(self.one_hot(graph.kinds))
            adjacency[i, :n, :n] = graph.edges.float()
            present[i, :n] = True
        return {"features": features, "adjacency": adjacency, "present": present}

    def decode(self, fields: Mapping[str, Tensor], what: str = "reconstruction") -> list[LabelledGraph]:
        """The graphs that a batch stands for: the nearest member of each group, an edge where adjacency is over 1/2.

        Without `present` every place is taken. Raises: MismatchError for missing or misshapen fields.
        """
        features, adjacency = (fields.get(name) for name in ("features", "adjacency"))
        if features is None or adjacency is None or features.ndim != 3 or features.shape[-1] != self.width:
            found = {name: tuple(tensor.shape) for name, tensor in fields.items()}
            raise MismatchError(
                f"The {what} holds {found}, but this domain compares 'features' (graph, node, {self.width}) and "
                "'adjacency' (graph, node, node). Give Graphs(blocks=...) the groups that the model reads."
            )
        if adjacency.shape != (*features.shape[:2], features.shape[1]):
            raise MismatchError(
                f"The {what} has adjacency {tuple(adjacency.shape)} beside features {tuple(features.shape)}; "
                "it needs one row and one column a node."
            )
        kinds = self.choices(features.detach().cpu().double().nan_to_num())
        linked = adjacency.detach().cpu().double().nan_to_num()
        edges = ((linked + linked.mT) / 2 > 0.5) & ~torch.eye(linked.shape[-1], dtype=torch.bool)
        here = fields.get("present")
        here = torch.ones(features.shape[:2], dtype=torch.bool) if here is None else here.detach().cpu().bool()
        return [LabelledGraph(k[p], e[p][:, p]) for k, e, p in zip(kinds, edges, here)]

    def score(self, truth: Batch, reconstruction: Mapping[str, Tensor]) -> Scores:
        """Similarity, exactness, and nodes and edges found, of each true graph against the rebuilt one matched to it.

        The matching is the assignment of most total likeness. A true graph that no rebuilt one is left for scores 0.
        """
        return self._score(self.decode(truth.fields, "truth"), self.decode(reconstruction))

    def baselines(self, truth: Batch, public: Batch | None) -> Mapping[str, Scores]:
        """Scores of graphs guessed without the update, by name; `baseline_labels` says what each one is.

        The random public graphs are the same in every call.
        """
        private = self.decode(truth.fields, "truth")
        known = [] if public is None else self.decode(public.fields, "public data")
        made = guesses(private, known, self.blocks, torch.Generator().manual_seed(0))
        return {name: self._score(private, guess) for name, guess in made.items()}

    def identify(self, truth: Batch, reconstruction: Mapping[str, Tensor], decoys: Batch) -> Identification:
        """Rank of each true graph among the decoys, by likeness to the rebuilt graph matched to it.

        Labels play no part. Decoys that are one of the true graphs are taken out of the line-up first.
        """
        private, rebuilt = self.decode(truth.fields, "truth"), self.decode(reconstruction)
        others = without(self.decode(decoys.fields, "decoys"), private)
        alike, strangers = (likeness(group, rebuilt, self.blocks) for group in (private, others))
        return Identification(ranks_in_lineup(1 - alike, 1 - strangers, alike, strangers), len(others))

    def render(self, fields: Mapping[str, Tensor]) -> list[bytes]:
        """One PNG per graph: a structural formula for molecules, nodes and links for anything else."""
        return [draw(graph, self.blocks) for graph in self.decode(fields)]

    def in_order(self, reconstruction: Mapping[str, Tensor], matching: Tensor) -> dict[str, Tensor]:
        """The rebuilt graphs in the order of the truth, an empty one where none was matched."""
        held = {name: reconstruction[name] for name in self.reads if name in reconstruction}
        held.setdefault("present", torch.ones(held["features"].shape[:2], dtype=torch.bool))
        return {name: torch.cat([t, torch.zeros_like(t[:1])])[matching.to(t.device)] for name, t in held.items()}

    def validate(self, batch: Batch) -> list[str]:
        """Remarks on a private batch that can be audited, e.g. isolated nodes.

        Raises: InvalidValueError for groups that are not one-hot, self-loops, one-way or weighted edges, and edges or
            features of places that hold no node.
        """
        return remarks(self, batch)

    def _score(self, private: Sequence[LabelledGraph], rebuilt: Sequence[LabelledGraph]) -> Scores:
        matching = match(1 - likeness(private, rebuilt, self.blocks))
        rows = [
            compare(graph, rebuilt[other] if other != UNMATCHED else None, self._read, self.blocks)
            for graph, other in zip(private, matching.tolist())
        ]
        scores = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
        return Scores(scores, matching)

    def _read(self, graph: LabelledGraph) -> Float[Tensor, "node column"]:
        return self.to_model(self.one_hot(graph.kinds).double())

    def _standard(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.mean or (0.0,) * self.width, self.std or (1.0,) * self.width
        return like.new_tensor(mean), like.new_tensor(std)

    def _per_column(self, name: str) -> tuple[float, ...] | None:
        values: Sequence[float] | None = getattr(self, name)
        if values is None:
            return None
        listed = tuple(float(v) for v in values)
        if len(listed) != sum(self.blocks):
            raise InvalidValueError(
                f"Graphs.{name} has {len(listed)} values for {sum(self.blocks)} columns; give one a column."
            )
        return listed

    def config(self) -> dict[str, Any]:
        """Name and arguments, ready for JSON; `from_config` reads it back. The vocabulary is left out: it is data."""
        kept = {key: list(v) if isinstance(v := getattr(self, key), tuple) else v for key in _PLAIN}
        return {"name": self.name, **kept}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Graphs:
        """The domain that wrote `config`, without its vocabulary."""
        arguments: dict[str, Any] = {
            key: tuple(value) if isinstance(value := config.get(key), list) else value for key in _PLAIN
        }
        return cls(**arguments)


_PLAIN = ("blocks", "nodes", "degree_block", "mean", "std")
