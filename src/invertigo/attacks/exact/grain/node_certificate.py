"""Graphs found behind a model that answers every node, with a label for each node."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.certificate import (
    WRITTEN_OUT,
    drawn,
    gradient_distance,
    node_labels,
    rests_on,
    told,
    with_copies,
)
from invertigo.attacks.exact.grain.equivalents import EquivalentGraphs, Member, neighbours
from invertigo.attacks.exact.grain.node_labels import LabelCounts, dealt, nodes_with_labels
from invertigo.attacks.exact.grain.pipeline import Evidence
from invertigo.attacks.exact.grain.recovery import GraphRecovery
from invertigo.domains.sameness import parts as parts_of
from invertigo.types import Observation

ALIKE = "which of the nodes with the same surroundings has which label is not told by the gradient"


def labelled(
    observation: Observation,
    anatomy: Anatomy,
    evidence: Evidence,
    realise: Callable[[list[int], tuple[tuple[int, ...], ...]], EquivalentGraphs],
    most_nodes: int,
    slack: float,
    budget: Budget,
) -> GraphRecovery | None:
    """The graph and the labels of its nodes, or None when the evidence gives none.

    Args:
        realise: all graphs with these counts of these groups of colours.
        slack: part of the read-out's gradient that may stay unexplained.
    """
    with budget.stage("counts"):
        counts = nodes_with_labels(anatomy, evidence, observation.task, most_nodes)
    if counts is None or counts.residual > slack:
        return None
    found = realise(counts.counts.sum(1).tolist(), counts.groups)
    with budget.stage("certificate"):
        return certify_labelled(observation, anatomy, evidence, found, counts, budget)


def certify_labelled(
    observation: Observation,
    anatomy: Anatomy,
    evidence: Evidence,
    found: EquivalentGraphs,
    counts: LabelCounts,
    budget: Budget,
) -> GraphRecovery | None:
    """The likeliest graph with the list of those it cannot be told from; of a batch, one graph a connected part.

    A mean over all nodes of a batch does not tell which graph a node is in, so a batch whose graphs have several parts
    each is not taken apart; then None.
    """
    given, places = observation.num_examples or 1, sorted(c for group in counts.groups for c in group)
    if given > 1:
        found.members = [m for m in found.members if len(_parts(m)) == given]
    if not found.members:
        return None
    alone = with_copies(evidence, found, places) if given == 1 else ""
    likeliest = found.members[0]
    whole = drawn(evidence, likeliest, places)
    labels = dealt(counts.counts, counts.groups, [places[c] for c in likeliest.colours])
    parts = _parts(likeliest) if given > 1 else [list(range(len(labels)))]
    graphs = tuple(_taken(whole, part) for part in parts)
    each = tuple(tuple(labels[node] for node in part) for part in parts)
    alike = bool(((counts.counts > 0).sum(1) > 1).any())
    unique = len(found) == 1 and found.complete and counts.unique
    return GraphRecovery(
        kind="exact" if unique and given == 1 else "equivalent",
        class_size=len(found),
        class_complete=found.complete,
        alternatives=graphs if given > 1 else tuple(drawn(evidence, m, places) for m in found.members[:WRITTEN_OUT]),
        certain_nodes=len(labels),
        nodes=len(labels),
        gradient_distance=gradient_distance(observation, anatomy, graphs, node_labels(each).tolist()),
        node_labels=each,
        reason=alone,
        assumes=(*rests_on(evidence, found, given), *([ALIKE] if alike else [])),
        **told(anatomy, evidence, budget),
    )


def _parts(member: Member) -> list[list[int]]:
    return parts_of(neighbours(member.edges, len(member.colours)))


def _taken(graph: Mapping[str, Tensor], nodes: list[int]) -> Mapping[str, Tensor]:
    kept = torch.tensor(nodes)
    return {"features": graph["features"][kept], "adjacency": graph["adjacency"][kept][:, kept]}
