"""What was found, as a reconstruction with its other answers, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from invertigo.attacks.exact.grain.certificate import node_labels, stacked
from invertigo.attacks.exact.grain.recovery import GraphRecovery
from invertigo.domains import Graphs
from invertigo.types import Observation, Reconstruction


def describe(name: str, observation: Observation, recovery: GraphRecovery, seconds: float) -> Reconstruction:
    """The reconstruction, padded as the domain pads, with its certificate and what that means in words."""
    known = observation.knowledge.labels
    inferred = bool(recovery.labels or recovery.node_labels or recovery.label is not None)
    first, *others = (_fields(observation, recovery, graphs) for graphs in _answers(recovery))
    return Reconstruction(
        fields=first,
        attack=name,
        objective=recovery.gradient_distance,
        stopped={"exact": "exact", "partial": "budget"}.get(recovery.kind, "ambiguous"),
        seconds=seconds,
        labels_inferred=known is None and inferred,
        notes=words(recovery),
        certificate=recovery,
        alternatives=tuple(others),
    )


def _answers(recovery: GraphRecovery) -> list[Sequence[Mapping[str, Tensor]]]:
    """The graphs of each answer that the gradient allows; of a batch, each graph in its first, second, ... form."""
    if recovery.parts:
        most = max(len(part.alternatives) for part in recovery.parts)
        forms = [part.alternatives for part in recovery.parts]
        return [[form[min(place, len(form) - 1)] for form in forms] for place in range(most)]
    if len(recovery.node_labels) > 1:
        return [recovery.alternatives]
    return [[graph] for graph in recovery.alternatives]


def _fields(
    observation: Observation, recovery: GraphRecovery, graphs: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    domain, like = observation.task.domain, next(iter(observation.parameters.values()))
    assert isinstance(domain, Graphs)
    fields = {
        key: tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device)
        for key, tensor in stacked(graphs, domain.nodes).items()
    }
    known = observation.knowledge.labels
    read = recovery.labels or (() if recovery.label is None else (recovery.label,))
    if recovery.node_labels:
        fields["labels"] = node_labels(recovery.node_labels, fields["present"].shape[1]).to(like.device)
    elif read:
        fields["labels"] = torch.tensor(read, device=like.device)
    elif known is not None and len(known) == len(graphs):
        fields["labels"] = known.to(like.device)
    return fields


def words(recovery: GraphRecovery) -> tuple[str, ...]:
    """What the certificate says, for a reader."""
    ranks = f"Ranks of the row spaces: {', '.join(map(str, recovery.ranks))}."
    if recovery.kind == "partial":
        certain = (
            f"{recovery.certain_nodes} kinds of nodes are certain" if recovery.certain_nodes else "nothing is certain"
        )
        return (f"Partial: {certain}. {recovery.reason}", ranks)
    rests = f"This assumes: {'; '.join(recovery.assumes)}."
    if recovery.parts:
        each = ", ".join(
            "up to covers" if part.kind == "up to covers" else f"one of {_size(part)}" for part in recovery.parts
        )
        return (f"{len(recovery.parts)} graphs: {each}.", rests, ranks)
    first = FIRST_WORDS[recovery.kind].format(nodes=recovery.nodes, size=_size(recovery))
    if recovery.reason:
        first += f" Two copies of it belong to the class, because {recovery.reason}."
    return (first, rests, ranks)


FIRST_WORDS = {
    "exact": "Exact: no other graph has this gradient.",
    "up to covers": (
        "Up to covers: no other graph of {nodes} nodes has this gradient; of the graphs with 2, 3, ... times as many, "
        "copies of this one and graphs that cover it have it too."
    ),
    "equivalent": "Gradient-equivalent class of {size}; the likeliest one, of {nodes} nodes, is returned.",
}


def _size(recovery: GraphRecovery) -> str:
    least, count = "" if recovery.class_complete else "at least ", recovery.class_size
    return f"{least}{count} graph{'s' * (count > 1)}"
