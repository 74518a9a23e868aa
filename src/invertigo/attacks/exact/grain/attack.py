"""GRAIN: the private graph, exactly, from the gradient of a graph network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy, dissect, in_double
from invertigo.attacks.exact.grain.assembly import assembled, why_not
from invertigo.attacks.exact.grain.budget import Budget, OutOfBudget
from invertigo.attacks.exact.grain.certificate import partial
from invertigo.attacks.exact.grain.chemistry import is_molecular, possible_atoms
from invertigo.attacks.exact.grain.description import describe
from invertigo.attacks.exact.grain.listing import Listing, sizes_known
from invertigo.attacks.exact.grain.nodes import TooMany
from invertigo.attacks.exact.grain.pipeline import Evidence, gather
from invertigo.attacks.exact.grain.pooled_counts import gather_pool
from invertigo.attacks.exact.grain.recovery import GraphRecovery
from invertigo.attacks.exact.grain.vertices import MANY
from invertigo.attacks.registry import register
from invertigo.attacks.subspace import LOOSEST
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

RESIDUAL, NOISY_RESIDUAL = 1e-3, 0.1
"""Part of the read-out's gradient that may stay unexplained, without noise and with."""


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
            if recovery.missed and anatomy.noise is None:
                recovery = self._again(observation, domain, model, budget, recovery)
        return describe(self.name, observation, recovery, time.perf_counter() - started)

    def _again(
        self, observation: Observation, domain: Graphs, model: GraphNetwork, budget: Budget, found: GraphRecovery
    ) -> GraphRecovery:
        """Where nothing was found: with the faintest directions of the row spaces, then with the loosest checks.

        Deep networks make nodes much alike, so that rounding hides in which directions they differ; and a ReLU may keep
        a direction out of the gradient altogether, near which the rows that have it still lie.
        """
        anatomy = dissect(observation, model, None, deep=True)
        fainter = any(space.rank != rank for space, rank in zip(anatomy.spans, found.ranks))
        looser = replace(self, tolerance=LOOSEST) if self.tolerance is None else self
        for attack in (self, looser) if fainter else (looser,):
            again = attack._recover(observation, domain, anatomy, budget)
            if again.kind != "partial":
                return again
        return found

    def _recover(self, observation: Observation, domain: Graphs, anatomy: Anatomy, budget: Budget) -> GraphRecovery:
        evidence, reason, missed = Evidence(domain, most_nodes=self.most_nodes), "", False
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
                    reason, missed = f"There are too many candidates: {error}.", False
                    continue
                if reason:
                    break
                recovery = assembled(observation, anatomy, evidence, self._listing(observation, anatomy, budget))
                if recovery is not None:
                    return self._proven(observation, anatomy, evidence, recovery, budget)
                reason, missed = why_not(evidence, self._listing(observation, anatomy, budget), observation), True
        except OutOfBudget as error:
            reason, missed = f"The budget ended after {error}.", False
        return partial(anatomy, evidence, budget, reason, missed)

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
                proven = (
                    None
                    if failed
                    else assembled(observation, anatomy, free, self._listing(observation, anatomy, budget))
                )
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

    def _listing(self, observation: Observation, anatomy: Anatomy, budget: Budget) -> Listing:
        domain, sizes = observation.task.domain, sizes_known(observation, self.sized)
        assert isinstance(domain, Graphs)
        how = self.most_nodes, self.alternatives, self.listing_seconds
        slack = RESIDUAL if anatomy.noise is None else NOISY_RESIDUAL
        return Listing(sizes, *how, self._chemical(domain), slack, budget)

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


def precise_model(observation: Observation) -> GraphNetwork:
    """A float64 copy of the model with the observed parameters. Raises: RequirementError for other models."""
    model = observation.task.model
    if not isinstance(model, GraphNetwork):
        raise RequirementError(
            f"Attack 'grain' reads GCN and GAT networks, not a {type(model).__name__}; a PyTorch Geometric model of "
            "GCNConv and GATConv layers is read through invertigo.models.from_geometric."
        )
    return in_double(model, observation.parameters)
