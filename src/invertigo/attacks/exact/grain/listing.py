"""From counts of colours to the graphs that have them, within what is known of a graph's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.chemistry import AROMATIC
from invertigo.attacks.exact.grain.equivalents import EquivalentGraphs, equivalent_graphs
from invertigo.attacks.exact.grain.pipeline import MOST_SPLITS, Evidence, split
from invertigo.domains import Graphs
from invertigo.models.graph_network import GraphNetwork
from invertigo.types import Observation


@dataclass(frozen=True)
class Listing:
    """How graphs are listed.

    Args:
        sizes: the fewest and most nodes of a graph, as far as the adversary knows.
        most_nodes, most, seconds: how far graphs are looked for; see `equivalent_graphs`.
        chemical: rank graphs by their rings.
        slack: part of the read-out's gradient that may stay unexplained.
    """

    sizes: tuple[int, int]
    most_nodes: int
    most: int
    seconds: float
    chemical: bool
    slack: float
    budget: Budget

    def graphs(
        self, evidence: Evidence, counts: Sequence[int], groups: tuple[tuple[int, ...], ...]
    ) -> EquivalentGraphs:
        """All graphs whose nodes have these groups of colours in the shares of these counts. Raises: OutOfBudget."""
        last = evidence.levels[-1]
        colours = sorted(c for group in groups for c in group)

        def options(fold: int) -> tuple[list[list[int]], bool]:
            made = split([fold * count for count in counts], groups)
            return [[choice.get(c, 0) for c in colours] for choice in made], len(made) < MOST_SPLITS

        aromatic = None
        if self.chemical and evidence.kinds is not None:
            aromatic = [bool(evidence.kinds[last.kinds[c], AROMATIC]) for c in colours]
        return equivalent_graphs(
            [last.own[c] for c in colours],
            [last.around[c] for c in colours],
            options,
            self.budget,
            aromatic=aromatic,
            most_nodes=max(self.most_nodes, self.sizes[1]),
            most=self.most,
            seconds=self.seconds,
            sizes=self.sizes,
        )


def sizes_known(observation: Observation, sized: bool) -> tuple[int, int]:
    """The fewest and most nodes of a graph: up to the domain's places, or if `sized` those that are known to be there.

    A model that answers every node takes a batch for one graph of several parts, whose nodes add up.
    """
    domain, model = observation.task.domain, observation.task.model
    assert isinstance(domain, Graphs)
    assert isinstance(model, GraphNetwork)
    joined = (observation.num_examples or 1) if model.level == "node" else 1
    present = observation.knowledge.fields.get("present") if sized else None
    if present is None:
        return 1, joined * domain.nodes
    counts = [int(count) for count in present.sum(1).tolist()]
    return (sum(counts), sum(counts)) if joined > 1 else (min(counts), max(counts))
