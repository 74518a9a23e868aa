"""Graphs found behind a model that answers every node, with a label for each node."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.assumptions import FEWEST, assumptions, unproven
from invertigo.attacks.exact.grain.certificate import (
    EXPLAINED,
    WRITTEN_OUT,
    claimed,
    drawn,
    gradient_distance,
    node_labels,
    told,
    with_copies,
)
from invertigo.attacks.exact.grain.equivalents import EquivalentGraphs, Member
from invertigo.attacks.exact.grain.forms import neighbours
from invertigo.attacks.exact.grain.listing import Listing
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
    listing: Listing,
    slack: float,
) -> GraphRecovery | None:
    """The graph and the labels of its nodes, or None when the evidence gives none.

    Args:
        slack: part of the read-out's gradient that may stay unexplained.
    """
    with listing.budget.stage("counts"):
        counts = nodes_with_labels(anatomy, evidence, observation.task, listing)
    if counts is None or counts.residual > slack:
        return None
    found = listing.graphs(evidence, counts.counts.sum(1).tolist(), counts.groups)
    with listing.budget.stage("certificate"):
        return certify_labelled(observation, anatomy, evidence, found, counts, listing)


def certify_labelled(
    observation: Observation,
    anatomy: Anatomy,
    evidence: Evidence,
    found: EquivalentGraphs,
    counts: LabelCounts,
    listing: Listing,
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
    distance = gradient_distance(observation, anatomy, graphs, node_labels(each).tolist())
    open_ = unproven(anatomy, evidence, whole, listing.sizes) + ([FEWEST] if given > 1 else [])
    sure = counts.unique and distance < EXPLAINED
    return GraphRecovery(
        kind=claimed(found, sure, open_),
        class_size=len(found),
        class_complete=found.complete and sure and not open_,
        alternatives=graphs if given > 1 else tuple(drawn(evidence, m, places) for m in found.members[:WRITTEN_OUT]),
        certain_nodes=len(labels),
        nodes=len(labels),
        gradient_distance=distance,
        node_labels=each,
        reason=alone,
        assumes=(*assumptions(found, listing.sizes, given=given), *open_, *([ALIKE] if alike else [])),
        **told(anatomy, evidence, listing.budget),
    )


def _parts(member: Member) -> list[list[int]]:
    return parts_of(neighbours(member.edges, len(member.colours)))


def _taken(graph: Mapping[str, Tensor], nodes: list[int]) -> Mapping[str, Tensor]:
    kept = torch.tensor(nodes)
    return {"features": graph["features"][kept], "adjacency": graph["adjacency"][kept][:, kept]}
