"""GRAIN: the private graph, exactly, from the gradient of a graph network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy, dissect, in_double
from invertigo.attacks.exact.grain.batches import Division, Pulls, divisions, graph_counts, pulls
from invertigo.attacks.exact.grain.budget import Budget, OutOfBudget
from invertigo.attacks.exact.grain.certificate import certify, certify_batch, describe, partial
from invertigo.attacks.exact.grain.chemistry import is_molecular, possible_atoms
from invertigo.attacks.exact.grain.counts import whole_numbers
from invertigo.attacks.exact.grain.equivalents import EquivalentGraphs
from invertigo.attacks.exact.grain.listing import Listing, sizes_known
from invertigo.attacks.exact.grain.node_certificate import labelled
from invertigo.attacks.exact.grain.nodes import TooMany
from invertigo.attacks.exact.grain.pipeline import Evidence, gather, read_rows
from invertigo.attacks.exact.grain.pooled_counts import gather_pool
from invertigo.attacks.exact.grain.recovery import GraphRecovery
from invertigo.attacks.exact.grain.vertices import MANY
from invertigo.attacks.registry import register
from invertigo.domains import Graphs
from invertigo.models.graph_network import GraphNetwork
from invertigo.types import (
    Observation,
    Paper,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    check_requirements,
)

Attempt = tuple[Callable[[Tensor], Tensor] | None, bool, bool, bool]
"""Which kinds of nodes are likely, whether a singular adjacency hides some blocks, whether no two neighbours are alike,
and whether a row in the space may be another node's."""

RESIDUAL = 1e-3
"""Part of the read-out's gradient that may stay unexplained, without noise."""


DIVISIONS = 8
"""Ways to share neighbourhoods out among the graphs of a batch that are tried."""


@register
@dataclass(frozen=True, kw_only=True)
class Grain:
    r"""The graph behind the gradient of a GCN or GAT: nodes, edges and label, unknown number of nodes included.

    Every linear layer's gradient shows the row space of what the layer read. Node features that lie in the first
    one's are kept (`nodes`), then neighbourhoods whose hidden features lie in the next one's (`blocks`), up to the
    read-out. How many nodes have each neighbourhood follows from the read-out's gradient, which is linear in these
    numbers (`counts`), and all graphs with these neighbourhoods are listed (`realisation`, `equivalents`): each of
    them has the observed gradient exactly, so the list is what any attacker is left with.

    Args:
        seconds: CPU seconds, after which what is certain by then is returned as `partial`.
        tolerance: relative distance from a row space up to which a candidate is kept; None takes it from the gap
            between the singular values that count and those that are noise.
        noise: standard deviation of noise on each entry of the gradient, which sets the ranks and tolerances; None
            takes it from what the adversary knows of the defense.
        most_nodes: graphs are listed up to this many nodes.
        most_degree: neighbours of a node, where the features do not tell.
        alternatives: graphs with the same gradient that are listed at most.
        listing_seconds: CPU seconds for each way of listing them.
        sized: use the number of nodes where the adversary knows it (rung 2), which leaves fewer graphs.
        chemistry: where nodes are atoms, look for atoms that exist before any others, and put graphs with the same
            gradient in the order of how common their rings are.

    Source: Drencheva et al. (2025). Ours: node features from the read-out where it holds them (a singular adjacency
    then does no harm), reciprocity between blocks, counts by non-negative least squares instead of gluing, and the
    list of graphs with the same gradient. Where GRAIN accepts the first graph whose gradient matches, among which are
    covers with twice the nodes, this attack says how many there are.
    """

    name: ClassVar[str] = "grain"
    paper: ClassVar[Paper] = Paper(
        "drencheva2025grain",
        "GRAIN: Exact Graph Reconstruction from Gradients",
        "Drencheva, Maria and Petrov, Ivo and Baader, Maximilian and Dimitrov, Dimitar Iliev and Vechev, Martin",
        2025,
        "International Conference on Learning Representations",
        "2503.01838",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset()
    domains: ClassVar[frozenset[str]] = frozenset({"graphs"})
    exact: ClassVar[bool] = True

    seconds: float | int = 60.0
    tolerance: float | None = None
    noise: float | None = None
    most_nodes: int = 128
    most_degree: int = 6
    alternatives: int = 64
    listing_seconds: float = 1.0
    sized: bool = False
    chemistry: bool = True

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`. Raises: RequirementError with the reason when the gradient shows no row space."""
        started = time.perf_counter()
        check_requirements(self, observation)
        domain, budget = observation.task.domain, Budget(float(self.seconds), progress)
        assert isinstance(domain, Graphs)
        model = precise_model(observation)
        with torch.no_grad():
            anatomy = dissect(observation, model, self._noise(observation))
            recovery = self._recover(observation, domain, anatomy, budget)
        return describe(self.name, observation, recovery, time.perf_counter() - started)

    def _recover(self, observation: Observation, domain: Graphs, anatomy: Anatomy, budget: Budget) -> GraphRecovery:
        evidence, reason = Evidence(domain, most_nodes=self.most_nodes), ""
        scores = anatomy.scores()
        if scores is None:
            raise RequirementError(
                "The read-out's last layer has no bias in this update; its gradient tells how far the graph's answer "
                "is from its label, without which nodes cannot be counted."
            )
        pooled = anatomy.model.pool_first
        full = [number for number, space in enumerate(anatomy.spans) if space.full and number and not pooled]
        if full:
            width = anatomy.spans[full[0]].rank
            reason = (
                f"The row space of layer {full[0]} has rank {width} of {width}, so that every candidate lies in it: "
                "the hidden width must exceed the number of different neighbourhoods."
            )
            return partial(anatomy, evidence, budget, reason)
        try:
            for likely, singular, distinct, doubting in self._attempts(domain, anatomy):
                evidence = evidence.again(likely, singular=singular, distinct=distinct, doubting=doubting)
                try:
                    reason = self._gather(observation, anatomy, evidence, budget, scores)
                except TooMany as error:
                    reason = f"There are too many candidates: {error}."
                    continue
                if reason:
                    break
                recovery = self._search(observation, anatomy, evidence, budget)
                if recovery is not None:
                    return self._proven(observation, anatomy, evidence, recovery, budget)
                reason = self._why(anatomy, evidence, observation.num_examples or 1)
        except OutOfBudget as error:
            reason = f"The budget ended after {error}."
        return partial(anatomy, evidence, budget, reason)

    def _proven(
        self, observation: Observation, anatomy: Anatomy, evidence: Evidence, found: GraphRecovery, budget: Budget
    ) -> GraphRecovery:
        """The same graph out of all that the gradient allows, where the search was confined and room is for one only.

        That may take far longer than finding it, so it gets as much time again; without a proof what was found stays.
        """
        room = sizes_known(observation, self.sized)[1] < 2 * (found.nodes or 0)
        confined = evidence.likely is not None or evidence.distinct
        if not (room and confined and found.class_size == 1 and (observation.num_examples or 1) == 1):
            return found
        scores, free = anatomy.scores(), evidence.again(None)
        assert scores is not None
        try:
            with budget.limited("proof", budget.spent + self.listing_seconds):
                failed = self._gather(observation, anatomy, free, budget, scores)
                proven = None if failed else self._search(observation, anatomy, free, budget)
        except (OutOfBudget, TooMany):
            return found
        return proven if proven is not None and proven.kind == "exact" else found

    def _gather(
        self, observation: Observation, anatomy: Anatomy, evidence: Evidence, budget: Budget, scores: Tensor
    ) -> str:
        """Fill the evidence; why the read-out tells too little, or nothing."""
        most = {"most_degree": self.most_degree, "most_nodes": self.most_nodes}
        if anatomy.model.pool_first:
            return gather_pool(anatomy, evidence, budget, scores, **most)
        alone = anatomy.model.level == "graph" and (observation.num_examples or 1) == 1
        gather(anatomy, evidence, budget, scores=scores if alone else None, tolerance=self.tolerance, **most)
        return ""

    def _search(
        self, observation: Observation, anatomy: Anatomy, evidence: Evidence, budget: Budget
    ) -> GraphRecovery | None:
        """What the evidence gives, or None."""
        graphs, listing = observation.num_examples or 1, self._listing(observation, budget)
        if anatomy.model.level == "node":
            return labelled(observation, anatomy, evidence, listing, self._slack(anatomy))
        if graphs == 1:
            found = self._list(anatomy, evidence, listing)
            if found is None or not len(found):
                return None
            with budget.stage("certificate"):
                return certify(observation, anatomy, evidence, found, listing)
        if not len(evidence.levels[-1]) or evidence.features is None:
            return None
        with budget.stage("counts"):
            rows = read_rows(anatomy, evidence.levels[-1], evidence.features)
            pulled = pulls(anatomy, rows, observation.task.num_classes or 2)
        if pulled.residual > self._slack(anatomy):
            return None
        with budget.stage("division"):
            ways = divisions(pulled, graphs, budget)
        for division in ways[:DIVISIONS]:
            recovery = self._divided(observation, anatomy, evidence, pulled, division, listing)
            if recovery is not None and recovery.gradient_distance < 10 * self._slack(anatomy):
                return recovery
        return None

    def _divided(
        self,
        observation: Observation,
        anatomy: Anatomy,
        evidence: Evidence,
        pulled: Pulls,
        division: Division,
        listing: Listing,
    ) -> GraphRecovery | None:
        parts = []
        for graph in range(len(division.labels)):
            counts, groups = graph_counts(pulled, division, graph)
            share = gcd(*counts)
            found = listing.graphs(evidence, [count // share for count in counts], groups)
            if not len(found):
                return None
            parts.append((found, sorted(c for group in groups for c in group), division.labels[graph]))
        return certify_batch(observation, anatomy, evidence, parts, pulled.unique, listing)

    def _list(self, anatomy: Anatomy, evidence: Evidence, listing: Listing) -> EquivalentGraphs | None:
        shares = evidence.shares
        if shares is None or shares.residual > self._slack(anatomy):
            return None
        total = shares.weights.sum()
        counts = whole_numbers(shares.weights / total, self.most_nodes, max(100 * shares.residual, 1e-5))
        if counts is None or abs(float(total) - 1) > 10 * self._slack(anatomy):
            return None
        return listing.graphs(evidence, counts.tolist(), shares.groups)

    def _listing(self, observation: Observation, budget: Budget) -> Listing:
        domain, sizes = observation.task.domain, sizes_known(observation, self.sized)
        assert isinstance(domain, Graphs)
        how = self.most_nodes, self.alternatives, self.listing_seconds
        return Listing(sizes, *how, self._chemical(domain), budget)

    def _attempts(self, domain: Graphs, anatomy: Anatomy) -> list[Attempt]:
        """Ways to search, likely ones first: among atoms that exist, and with a singular adjacency in mind.

        Nodes with many features are hardly ever alike, so that they are first taken to be all different.
        """
        kinds = [possible_atoms, None] if self._chemical(domain) else [None]
        hidden = [False, True] if any(anatomy.mixes(layer) for layer in range(1, anatomy.depth)) else [False]
        distinct = [True, False] if len(domain.blocks) >= MANY else [False]
        return [
            (likely, singular, apart, doubting)
            for likely in kinds
            for apart in distinct
            for singular in hidden
            for doubting in ([False, True] if singular and apart else [False])
        ]

    def _chemical(self, domain: Graphs) -> bool:
        return self.chemistry and is_molecular(domain)

    def _noise(self, observation: Observation) -> float | None:
        """The noise on each entry: as given, else the largest that an adversary who knows the defense reckons with."""
        view = observation.knowledge.view
        if self.noise is not None or view is None or not view.noise_std:
            return self.noise
        return max(float(std) for std in view.noise_std.values()) or None

    def _slack(self, anatomy: Anatomy) -> float:
        return RESIDUAL if anatomy.noise is None else 0.1

    def _why(self, anatomy: Anatomy, evidence: Evidence, graphs: int) -> str:
        for stage, count in evidence.passed.items():
            if count == 0:
                return f"No candidate of stage '{stage}' lies in its row space."
        if graphs > 1:
            return f"The neighbourhoods could not be shared out among {graphs} graphs."
        if evidence.shares is None or evidence.shares.residual > self._slack(anatomy):
            rest = 1.0 if evidence.shares is None else evidence.shares.residual
            return f"The candidates explain all but {rest:.1e} of the read-out's gradient, so some are missing."
        return f"The shares of the neighbourhoods fit no graph of up to {self.most_nodes} nodes."


def precise_model(observation: Observation) -> GraphNetwork:
    """A float64 copy of the model with the observed parameters. Raises: RequirementError for other models."""
    model = observation.task.model
    if not isinstance(model, GraphNetwork):
        raise RequirementError(
            f"Attack 'grain' reads GCN and GAT networks, not a {type(model).__name__}; a PyTorch Geometric model of "
            "GCNConv and GATConv layers is read through invertigo.models.from_geometric."
        )
    return in_double(model, observation.parameters)
