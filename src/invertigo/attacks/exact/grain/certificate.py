"""What was found, checked against the gradient and put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.assumptions import assumptions, implausible_alone, unproven
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.counts import SECONDS_TO_WEIGH
from invertigo.attacks.exact.grain.equivalents import EquivalentGraphs, Member, doubled
from invertigo.attacks.exact.grain.listing import Listing
from invertigo.attacks.exact.grain.pipeline import Evidence
from invertigo.attacks.exact.grain.recovery import GraphRecovery
from invertigo.types import Observation

WRITTEN_OUT = 64
APART = 100
"""A graph has another gradient when it is so many times as far from the observed one as the likeliest graph's."""
EXPLAINED = 1e-4
"""Relative distance up to which a gradient is that of the graph with this label; with another one it is over 1."""


def certify(
    observation: Observation, anatomy: Anatomy, evidence: Evidence, found: EquivalentGraphs, listing: Listing
) -> GraphRecovery | None:
    """The likeliest graph with the list of those it cannot be told from; None when none of them has the gradient."""
    assert evidence.shares is not None
    colours = sorted(c for group in evidence.shares.groups for c in group)
    alone = with_copies(evidence, found, colours)
    known = observation.knowledge.labels
    classes = likely_labels(observation, anatomy) if known is None else known.flatten()[:1].tolist()
    first = drawn(evidence, found.members[0], colours)
    distance, label = _nearest_label(observation, anatomy, first, classes)

    def far(member: Member) -> bool:
        return gradient_distance(observation, anatomy, [drawn(evidence, member, colours)], [label]) > apart

    apart = max(EXPLAINED, APART * distance)
    kept = [found.members[0], *(m for m in found.members[1:] if not listing.budget.left or not far(m))]
    found.members = kept
    matters = distance < EXPLAINED and (found.alone or found.complete)
    sure = matters and _affordable(evidence, listing.budget) and evidence.shares.unique
    open_ = unproven(anatomy, evidence, first, listing.sizes)
    graphs = tuple(drawn(evidence, member, colours) for member in found.members[:WRITTEN_OUT])
    return GraphRecovery(
        kind=claimed(found, sure, open_),
        class_size=len(found),
        class_complete=found.complete and sure and not open_,
        alternatives=graphs,
        certain_nodes=len(graphs[0]["features"]),
        nodes=len(graphs[0]["features"]),
        gradient_distance=distance,
        label=label,
        reason=alone,
        assumes=(*assumptions(found, listing.sizes), *open_),
        **told(anatomy, evidence, listing.budget),
    )


def _affordable(evidence: Evidence, budget: Budget) -> bool:
    return SECONDS_TO_WEIGH * len(evidence.levels[-1]) ** 3 < budget.remaining


def claimed(found: EquivalentGraphs, sure: bool, open_: Sequence[str]) -> str:
    """What may be said of a list of graphs.

    Args:
        sure: the gradient is that of the first graph, and determines the shares of its colours.
        open_: where the search was confined to less than the gradient allows.
    """
    if len(found) == 1 and found.complete and sure and not open_:
        return "exact"
    return "up to covers" if found.alone and sure else "equivalent"


def likely_labels(observation: Observation, anatomy: Anatomy) -> list[int]:
    """All labels, the likeliest first: the true one's logit is the one that the usual losses push up."""
    scores = anatomy.scores()
    if scores is None or len(scores) != (observation.task.num_classes or 2):
        return list(range(observation.task.num_classes or 2))
    return scores.argsort().tolist()


def _nearest_label(
    observation: Observation, anatomy: Anatomy, graph: Mapping[str, Tensor], labels: Sequence[int]
) -> tuple[float, int]:
    """The distance of the gradient with the first label that explains it, or with the best one, and that label."""
    tried = []
    for label in labels:
        tried.append((gradient_distance(observation, anatomy, [graph], [label]), int(label)))
        if tried[-1][0] < EXPLAINED:
            break
    return min(tried)


def with_copies(evidence: Evidence, found: EquivalentGraphs, colours: Sequence[int]) -> str:
    """Add two copies of the likeliest graph to the class where one alone is unlikely, and say why."""
    likeliest = found.members[0]
    kinds = [evidence.levels[-1].kinds[colours[c]] for c in likeliest.colours]
    impossible, parts = likeliest.cost[:2]
    why = "it has several parts" if parts > 1 else implausible_alone(evidence, kinds, impossible == 0)
    if why:
        found.members.append(doubled(likeliest))
    return why


def partial(anatomy: Anatomy, evidence: Evidence, budget: Budget, reason: str, missed: bool = False) -> GraphRecovery:
    """The nodes that are certain: counted ones, else kinds when there are no more of them than dimensions.

    `missed` tells that all candidates were gone through and no graph is made of them.
    """
    features, certain = evidence.domain.one_hot(torch.zeros(0, len(evidence.domain.blocks), dtype=torch.long)), 0
    if evidence.features is not None and len(evidence.features):
        features = evidence.features
        named = sorted(set(evidence.levels[-1].kinds)) or list(range(len(features)))
        features = features[named]
        rank = int(torch.linalg.matrix_rank(features))
        certain = len(features) if rank == len(features) == anatomy.spans[0].rank else 0
    graph = {"features": features.double(), "adjacency": torch.zeros(len(features), len(features))}
    return GraphRecovery(
        kind="partial",
        class_size=0,
        class_complete=False,
        alternatives=(graph,),
        certain_nodes=certain,
        nodes=None,
        gradient_distance=1.0,
        label=None,
        reason=reason,
        missed=missed,
        **told(anatomy, evidence, budget),
    )


def told(anatomy: Anatomy, evidence: Evidence, budget: Budget) -> dict:
    """How the search went."""
    return {
        "stages": dict(budget.stages),
        "candidates": {**evidence.passed, "tested": budget.candidates},
        "ranks": tuple(space.rank for space in anatomy.spans),
        "confidence": tuple(space.confidence for space in anatomy.spans),
    }


def drawn(evidence: Evidence, member: Member, colours: Sequence[int]) -> Mapping[str, Tensor]:
    """Features (node, column) and adjacency (node, node) of one graph, whose colours are places in `colours`."""
    last = evidence.levels[-1]
    assert evidence.features is not None
    kinds = [last.kinds[colours[c]] for c in member.colours]
    adjacency = torch.zeros(len(kinds), len(kinds), dtype=torch.float64)
    for a, b in member.edges:
        adjacency[a, b] = adjacency[b, a] = 1.0
    return {"features": evidence.features[kinds], "adjacency": adjacency}


def certify_batch(
    observation: Observation,
    anatomy: Anatomy,
    evidence: Evidence,
    found: Sequence[tuple[EquivalentGraphs, list[int], int]],
    listing: Listing,
) -> GraphRecovery:
    """The likeliest form of each graph; `found` has its class, its colours and its label.

    That nodes were shared out among the graphs in the only way is not proven, so each is one of at least its class.
    """
    parts, budget = [], listing.budget
    for graphs, colours, label in found:
        why = with_copies(evidence, graphs, colours)
        forms = tuple(drawn(evidence, member, colours) for member in graphs.members[:WRITTEN_OUT])
        size, open_ = len(forms[0]["features"]), unproven(anatomy, evidence, forms[0], listing.sizes)
        rests = (*assumptions(graphs, listing.sizes, given=len(found)), *open_)
        facts = "equivalent", len(graphs), False, forms, size, size, 0.0, label
        parts.append(GraphRecovery(*facts, reason=why, assumes=rests))
    firsts, labels = tuple(part.alternatives[0] for part in parts), tuple(label for _, _, label in found)
    return GraphRecovery(
        kind="equivalent",
        class_size=prod(part.class_size for part in parts),
        class_complete=all(part.class_complete for part in parts),
        alternatives=firsts,
        certain_nodes=sum(part.certain_nodes for part in parts),
        nodes=sum(part.certain_nodes for part in parts),
        gradient_distance=gradient_distance(observation, anatomy, firsts, labels),
        labels=labels,
        parts=tuple(parts),
        assumes=tuple(dict.fromkeys(text for part in parts for text in part.assumes)),
        **told(anatomy, evidence, budget),
    )


def gradient_distance(
    observation: Observation,
    anatomy: Anatomy,
    graphs: Sequence[Mapping[str, Tensor]],
    labels: Sequence[int] | Sequence[Sequence[int]],
) -> float:
    """Relative distance between the gradient of these graphs and the observed one."""
    named, like = dict(anatomy.model.named_parameters()), next(iter(observation.parameters.values()))
    fields = {**stacked(graphs, 0), "labels": torch.tensor(list(labels), device=like.device)}

    def answers(*read: Tensor) -> Tensor:
        # The loss may hold tensors of its own, such as class weights: it gets the client's precision and device.
        return anatomy.model(*read).to(like)

    with torch.enable_grad():
        loss = observation.task.evaluate(answers, fields)
        made = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    pairs = [(own, anatomy.gradients[name]) for name, own in zip(named, made) if name in anatomy.gradients]
    rest = sum(float((own - sent).square().sum()) for own, sent in pairs)
    return (rest / max(sum(float(sent.square().sum()) for _, sent in pairs), 1e-300)) ** 0.5


def stacked(graphs: Sequence[Mapping[str, Tensor]], places: int) -> dict[str, Tensor]:
    """Features, adjacency and presence of graphs, padded to the same number of nodes, at least `places`."""
    places = max(places, *(len(graph["features"]) for graph in graphs), 1)
    width = graphs[0]["features"].shape[1]
    features = torch.zeros(len(graphs), places, width, dtype=torch.float64)
    adjacency = torch.zeros(len(graphs), places, places, dtype=torch.float64)
    present = torch.zeros(len(graphs), places, dtype=torch.bool)
    for number, graph in enumerate(graphs):
        count = len(graph["features"])
        features[number, :count], adjacency[number, :count, :count] = graph["features"], graph["adjacency"]
        present[number, :count] = True
    return {"features": features, "adjacency": adjacency, "present": present}


def node_labels(labels: Sequence[Sequence[int]], places: int = 0) -> Tensor:
    """Labels (graph, node), with -1 where a graph has no more nodes."""
    places = max(places, *map(len, labels))
    return torch.tensor([[*row, *[-1] * (places - len(row))] for row in labels])
