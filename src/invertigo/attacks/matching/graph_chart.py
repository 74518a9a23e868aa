"""Graphs relaxed to free numbers: a softmax for each one-hot group, a sigmoid for each possible edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from invertigo.attacks.matching.space import Field
from invertigo.domains import Graphs

NODES, EDGES = "node_logits", "edge_logits"


@dataclass(frozen=True)
class GraphChart:
    """Node features are softmaxes of logits, one for each one-hot group; edges are sigmoids of the upper triangle.

    `present` (graph, node) says which places hold a node, which the adversary must know. With `adjacency`
    (graph, node, node) the edges are known too, and only features are unknown.

    Source: Zhu et al. 2019 (DLG) in the form that Drencheva et al. 2025 (GRAIN) compare with.
    """

    domain: Graphs
    present: Tensor
    adjacency: Tensor | None = None

    @cached_property
    def places(self) -> int:
        """Places for nodes that some graph of the batch uses."""
        return int(self.present.any(0).nonzero().max()) + 1

    @property
    def unknowns(self) -> Mapping[str, Field]:
        """Logits of the features, and of the edges unless these are known."""
        graphs = len(self.present)
        features = {NODES: Field((graphs, self.places, self.domain.width))}
        pairs = self.places * (self.places - 1) // 2
        return features if self.adjacency is not None or not pairs else features | {EDGES: Field((graphs, pairs))}

    def fields(self, unknowns: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Features, adjacency and present of candidates (restart, graph, ...)."""
        logits = unknowns[NODES]
        here = self.present[:, : self.places].to(logits)
        passed = {name: tensor for name, tensor in unknowns.items() if name not in (NODES, EDGES)}
        return passed | {
            "features": self.domain.to_model(self._chosen(logits)) * here[..., None],
            "adjacency": self._linked(unknowns, logits) * here[:, :, None] * here[:, None, :],
            "present": self.present[:, : self.places].expand(*logits.shape[:-1]),
        }

    def settled(self, fields: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The likeliest member of each group and the edges over 1/2, padded to the domain's places."""
        like, here = fields["features"], fields["present"]
        one_hot = self.domain.one_hot(self.domain.choices(like)).to(like)
        extra = max(self.domain.nodes - self.places, 0)
        return {
            "features": functional.pad(self.domain.to_model(one_hot) * here[..., None].to(like), (0, 0, 0, extra)),
            "adjacency": functional.pad((fields["adjacency"] > 0.5).to(like), (0, extra, 0, extra)),
            "present": functional.pad(here, (0, extra)),
        }

    def _chosen(self, logits: Tensor) -> Tensor:
        """Neighbouring yes-or-no columns are done in one go: there may be thousands."""
        parts, start = [], 0
        for width, columns in self._runs:
            part = logits[..., start : start + columns]
            parts.append(part.sigmoid() if width == 1 else part.softmax(-1))
            start += columns
        return torch.cat(parts, dim=-1)

    @cached_property
    def _runs(self) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for width in self.domain.blocks:
            if width == 1 and runs and runs[-1][0] == 1:
                runs[-1] = (1, runs[-1][1] + 1)
            else:
                runs.append((width, width))
        return runs

    def _linked(self, unknowns: Mapping[str, Tensor], like: Tensor) -> Tensor:
        shape = (*like.shape[:-2], self.places, self.places)
        if self.adjacency is not None:
            return self.adjacency[:, : self.places, : self.places].to(like).expand(shape)
        if EDGES not in unknowns:
            return like.new_zeros(shape)
        pairs = unknowns[EDGES].sigmoid()
        both = torch.cat([pairs, torch.zeros_like(pairs[..., :1])], dim=-1)  # the last entry is "no edge to itself"
        return both[..., self._positions.to(like.device)]

    @cached_property
    def _positions(self) -> Tensor:
        """(node, node): where each pair stands among the logits."""
        rows, columns = torch.triu_indices(self.places, self.places, 1)
        positions = torch.full((self.places, self.places), len(rows))
        positions[rows, columns] = positions[columns, rows] = torch.arange(len(rows))
        return positions
