"""The easiest graph to rebuild: six different nodes in a branched chain, from the gradient of a graph network."""

from __future__ import annotations

import torch

from invertigo.domains import Graphs
from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.models import build, graph_task
from invertigo.testing.cases import Case
from invertigo.types import Batch, Knowledge, LocalTraining, Observation, Requirement, Update, buffers_of, trainable

GROUPS = (4, 3, 5)
"""Two groups of features, and the degree."""
CHAIN = ((0, 1), (1, 2), (2, 3), (3, 4), (1, 5))
KINDS = ((0, 0), (1, 0), (2, 1), (3, 2), (0, 2), (2, 0))


def graph_case(requires: frozenset[Requirement], dtype: torch.dtype = torch.float64) -> Case:
    """One private graph and its exact gradient; the adversary knows what is required and not a bit more."""
    domain = Graphs(GROUPS, nodes=len(KINDS), degree_block=2)
    truth = _batch(domain, 1, 0, dtype)
    network = build("gcn", input_shape=(len(KINDS), domain.width), num_classes=2, hidden=48,
                    generator=torch.Generator().manual_seed(1))  # fmt: skip
    task = graph_task(network.to(dtype), domain, 2)
    named = dict(task.model.named_parameters())
    loss = task.evaluate(task.model, truth.fields)
    update = Update(dict(zip(named, torch.autograd.grad(loss, list(named.values())))), "gradient")

    knowledge = Knowledge(
        num_examples=1 if Requirement.BATCH_SIZE in requires else None,
        labels=truth["labels"] if Requirement.LABELS in requires else None,
        batch_statistics={} if Requirement.BATCH_STATISTICS in requires else None,
        public=_batch(domain, 8, 1, dtype) if Requirement.PUBLIC_DATA in requires else None,
        fields={"present": truth["present"]} if Requirement.NODE_COUNTS in requires else {},
    )
    observation = Observation(task, trainable(task.model), buffers_of(task.model), update, LocalTraining(), knowledge)
    return Case(observation, truth)


def _batch(domain: Graphs, count: int, shift: int, dtype: torch.dtype) -> Batch:
    """The chain, or chains with other kinds of nodes."""
    edges = torch.zeros(len(KINDS), len(KINDS), dtype=torch.bool)
    rows, columns = torch.tensor(CHAIN).T
    edges[rows, columns] = edges[columns, rows] = True
    kinds = torch.cat([torch.tensor(KINDS), edges.sum(1)[:, None]], dim=1)
    widths = torch.tensor([*GROUPS[:2], 10])
    graphs = [LabelledGraph((kinds + torch.tensor([shift + i, i, 0])) % widths, edges) for i in range(count)]
    labels = torch.arange(count) % 2
    return Batch({**domain.encode(graphs), "labels": labels}).to(dtype=dtype)
