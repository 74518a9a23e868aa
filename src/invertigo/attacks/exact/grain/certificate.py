"""What was found, checked against the gradient and put into words."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.equivalents import EquivalentGraphs, Member
from invertigo.attacks.exact.grain.pipeline import Evidence
from invertigo.attacks.exact.grain.recovery import GraphRecovery
from invertigo.domains import Graphs
from invertigo.types import Observation, Reconstruction

WRITTEN_OUT = 64


def certify(
    observation: Observation, anatomy: Anatomy, evidence: Evidence, found: EquivalentGraphs, budget: Budget
) -> GraphRecovery:
    """The likeliest graph with the list of those it cannot be told from."""
    graphs = tuple(drawn(evidence, member) for member in found.members[:WRITTEN_OUT])
    unique = len(found) == 1 and found.complete and evidence.shares is not None and evidence.shares.unique
    distance, label = gradient_distance(observation, anatomy, graphs[0])
    return GraphRecovery(
        kind="exact" if unique else "equivalent",
        class_size=len(found),
        class_complete=found.complete,
        alternatives=graphs,
        certain_nodes=len(graphs[0]["features"]),
        nodes=len(graphs[0]["features"]),
        gradient_distance=distance,
        label=label,
        **told(anatomy, evidence, budget),
    )


def partial(anatomy: Anatomy, evidence: Evidence, budget: Budget, reason: str) -> GraphRecovery:
    """The nodes that are certain: counted ones, else kinds when there are no more of them than dimensions."""
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


def drawn(evidence: Evidence, member: Member) -> Mapping[str, Tensor]:
    """Features (node, column) and adjacency (node, node) of one graph."""
    last = evidence.levels[-1]
    colours = sorted(c for group in evidence.shares.groups for c in group)
    kinds = [last.kinds[colours[c]] for c in member.colours]
    adjacency = torch.zeros(len(kinds), len(kinds), dtype=torch.float64)
    for a, b in member.edges:
        adjacency[a, b] = adjacency[b, a] = 1.0
    return {"features": evidence.features[kinds], "adjacency": adjacency}


def gradient_distance(
    observation: Observation, anatomy: Anatomy, graph: Mapping[str, Tensor]
) -> tuple[float, int | None]:
    """Relative distance between the graph's own gradient and the observed one, and the label that gives the least."""
    known = observation.knowledge.labels
    classes = range(observation.task.num_classes or 2) if known is None else known.flatten()[:1].tolist()
    named = dict(anatomy.model.named_parameters())
    observed = torch.cat([anatomy.gradients[name].flatten() for name in named if name in anatomy.gradients])
    best: tuple[float, int | None] = (float("inf"), None)
    for label in classes:
        fields = {
            "features": graph["features"][None],
            "adjacency": graph["adjacency"][None],
            "present": torch.ones(1, len(graph["features"]), dtype=torch.bool),
            "labels": torch.tensor([label]),
        }
        with torch.enable_grad():
            loss = observation.task.evaluate(anatomy.model, fields)
            made = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
        flat = torch.cat([g.flatten() for name, g in zip(named, made) if name in anatomy.gradients])
        distance = float((flat - observed).norm() / observed.norm())
        best = min(best, (distance, int(label)), key=lambda pair: pair[0])
    return best


def describe(name: str, observation: Observation, recovery: GraphRecovery, seconds: float) -> Reconstruction:
    """The reconstruction, padded as the domain pads, with its certificate and what that means in words."""
    domain = observation.task.domain
    graph, like = recovery.alternatives[0], next(iter(observation.parameters.values()))
    count = len(graph["features"])
    places = max(domain.nodes, count)
    features = torch.zeros(1, places, domain.width, dtype=torch.float64)
    adjacency = torch.zeros(1, places, places, dtype=torch.float64)
    features[0, :count], adjacency[0, :count, :count] = graph["features"], graph["adjacency"]
    fields = {
        "features": features.to(like),
        "adjacency": adjacency.to(like),
        "present": (torch.arange(places) < count)[None].to(like.device),
    }
    known = observation.knowledge.labels
    if known is not None:
        fields["labels"] = known
    elif recovery.label is not None:
        fields["labels"] = torch.tensor([recovery.label], device=like.device)
    return Reconstruction(
        fields=fields,
        attack=name,
        objective=recovery.gradient_distance,
        stopped={"exact": "exact", "equivalent": "exact"}.get(recovery.kind, "budget"),
        seconds=seconds,
        labels_inferred=known is None and recovery.label is not None,
        notes=words(recovery),
        certificate=recovery,
    )


def words(recovery: GraphRecovery) -> tuple[str, ...]:
    """What the certificate says, for a reader."""
    ranks = f"Ranks of the row spaces: {', '.join(map(str, recovery.ranks))}."
    if recovery.kind == "partial":
        certain = (
            f"{recovery.certain_nodes} kinds of nodes are certain" if recovery.certain_nodes else "nothing is certain"
        )
        return (f"Partial: {certain}. {recovery.reason}", ranks)
    size = f"{'' if recovery.class_complete else 'at least '}{recovery.class_size}"
    if recovery.kind == "exact":
        first = f"Exact: no other graph of {recovery.nodes} nodes has this gradient."
    else:
        first = (
            f"Gradient-equivalent class of {size} graphs with {recovery.nodes} nodes; the likeliest one is returned."
        )
    return (
        first,
        "A mean over nodes hides how often a graph is repeated: the smallest plausible size is given.",
        ranks,
    )
