"""GRAIN behind heads other than the paper's: an answer for every node, or the answer to the mean embedding."""

import dataclasses

import pytest
import torch
from torch import nn

from invertigo import data, models
from invertigo.attacks import reconstruct
from invertigo.domains import Graphs
from invertigo.domains.labelled_graph import LabelledGraph, isomorphism
from invertigo.evaluation import evaluate
from invertigo.federation import observe
from invertigo.models import from_geometric, graph_task
from invertigo.types import Batch, LocalTraining

DRUGS = data.load("drugs")
DOMAIN = DRUGS.domain(standardise=True)
NAMES = list(DRUGS.names)


def network(name="gcn", pooled=False, **options):
    generator = torch.Generator().manual_seed(0)
    model = models.build(name, input_shape=(DOMAIN.nodes, DOMAIN.width), num_classes=3, generator=generator, **options)
    model.pool_first = pooled
    return model


def labelled(*names, classes=3, seed=0):
    batch = DRUGS.batch([NAMES.index(name) for name in names], DOMAIN)
    drawn = torch.randint(0, classes, batch["present"].shape, generator=torch.Generator().manual_seed(seed))
    return Batch({**batch.fields, "labels": drawn.where(batch["present"], -1)})


def rebuilt(batch, model, loss="cross_entropy", domain=DOMAIN, **hyperparameters):
    task = graph_task(model, domain, 3, loss=loss)
    observation = observe(task, batch, LocalTraining(mode="eval"), level=3)
    knowledge = dataclasses.replace(observation.knowledge, labels=None)
    return reconstruct(dataclasses.replace(observation, knowledge=knowledge), "grain", **hyperparameters)


def hits(batch, result, domain=DOMAIN):
    """How many of the listed graphs are the true one, and whether the first is."""
    (truth,) = domain.decode(batch.fields)
    listed = []
    for graph in result.certificate.alternatives:
        ones = {"features": graph["features"][None], "adjacency": graph["adjacency"][None]}
        listed += domain.decode(ones)
    found = [isomorphism(truth, graph) is not None for graph in listed]
    return sum(found), found[0]


def labels_by_kind(graph, labels):
    return sorted((tuple(kind), int(label)) for kind, label in zip(graph.kinds.tolist(), labels))


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_an_answer_for_every_node_gives_the_graph_and_the_labels_of_each_kind_of_node(name, loss):
    batch = labelled("acetaminophen")
    result = rebuilt(batch, network(name, level="node"), loss)
    assert hits(batch, result) == (1, True)
    assert result.objective < 1e-4
    (true,), (found,) = DOMAIN.decode(batch.fields), DOMAIN.decode(result.fields)
    ours, theirs = result.fields["labels"][0], batch["labels"][0]
    assert labels_by_kind(found, ours[ours >= 0]) == labels_by_kind(true, theirs[theirs >= 0])
    assert result.labels_inferred
    assert result.fields["labels"].shape == result.fields["present"].shape


def test_labels_of_alike_nodes_are_counted_but_not_placed_and_that_is_said():
    """A benzene ring has six nodes with the same surroundings; two labels among them."""
    pairs = [(i, (i + 1) % 6) for i in range(6)]
    edges = torch.zeros(6, 6, dtype=torch.bool)
    for a, b in pairs:
        edges[a, b] = edges[b, a] = True
    domain = Graphs((2, 4), nodes=6, degree_block=1)
    kinds = torch.tensor([[1, 2]] * 6)
    batch = Batch({**domain.encode([LabelledGraph(kinds, edges)]), "labels": torch.tensor([[0, 0, 2, 0, 2, 2]])})
    model = models.build("gat", input_shape=(6, 6), num_classes=3, level="node", generator=torch.Generator()).double()
    result = rebuilt(batch, model, domain=domain)
    (labels,) = result.certificate.node_labels
    assert labels.count(0) == labels.count(2) == len(labels) / 2
    assert any("same surroundings" in text for text in result.certificate.assumes)


def test_padding_carries_no_label_and_labels_are_scored_by_their_counts():
    batch = labelled("metformin")
    result = rebuilt(batch, network(level="node"))
    told = evaluate(result, batch, domain=DOMAIN)
    assert told.label_accuracy == 1.0
    wrong = {**result.fields, "labels": (result.fields["labels"] + 1).clamp(max=2)}
    assert evaluate(dataclasses.replace(result, fields=wrong), batch, domain=DOMAIN).label_accuracy < 1.0


def test_several_graphs_behind_answers_for_every_node_are_its_parts():
    batch = labelled("metformin", "acetaminophen")
    result = rebuilt(batch, network(level="node"))
    found = DOMAIN.decode(result.fields)
    assert len(found) == 2
    for truth in DOMAIN.decode(batch.fields):
        assert any(isomorphism(truth, graph) is not None for graph in found)


@pytest.mark.parametrize("options", [{}, {"concatenate": False}, {"bias": True}, {"activation": "gelu"}])
@pytest.mark.parametrize("name", ["acetaminophen", "metformin"])
def test_the_graph_is_listed_behind_a_mean_embedding(name, options):
    batch = DRUGS.batch([NAMES.index(name)], DOMAIN)
    result = rebuilt(batch, network(pooled=True, **options))
    assert hits(batch, result)[0] == 1
    assert result.certificate.class_size <= 64
    assert result.fields["labels"].tolist() == batch["labels"].tolist()
    assert result.objective < 1e-4


def test_every_graph_listed_behind_a_mean_embedding_has_the_observed_gradient():
    batch = DRUGS.batch([NAMES.index("caffeine")], DOMAIN)
    model = network(pooled=True).double()
    task = graph_task(model, DOMAIN, 3)
    local = LocalTraining(mode="eval")
    seen = observe(task, batch, local, level=3)
    proof = reconstruct(seen, "grain").certificate
    assert len(proof.alternatives) > 1
    for graph in proof.alternatives:
        fields = {name: tensor[None] for name, tensor in graph.items()}
        present = torch.ones(1, len(graph["features"]), dtype=torch.bool)
        again = observe(task, Batch({**fields, "present": present, "labels": batch["labels"]}), local, level=3)
        for name, tensor in seen.update.tensors.items():
            torch.testing.assert_close(again.update.tensors[name], tensor, rtol=1e-3, atol=1e-8)


def test_geometrics_usual_model_is_read():
    pyg = pytest.importorskip("torch_geometric.nn")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [pyg.GCNConv(DOMAIN.width, 300), pyg.GCNConv(300, 300)]
        head = nn.Sequential(nn.Linear(300, 64), nn.ReLU(), nn.Linear(64, 3))
    batch = DRUGS.batch([NAMES.index("acetaminophen")], DOMAIN)
    assert hits(batch, rebuilt(batch, from_geometric(layers, head, activation=nn.ReLU())))[0] == 1


def test_three_convolutions_tell_more_behind_a_mean_embedding_than_two():
    batch = DRUGS.batch([NAMES.index("caffeine")], DOMAIN)
    two, three = (rebuilt(batch, network(pooled=True, layers=count)) for count in (2, 3))
    assert hits(batch, three)[0] == 1
    assert three.certificate.class_size < two.certificate.class_size


@pytest.mark.parametrize(("options", "names", "why"), [
    ({"name": "gat"}, ["aspirin"], "only graph convolutions"),
    ({}, ["aspirin", "caffeine"], "several graphs"),
])  # fmt: skip
def test_what_a_mean_embedding_hides_is_said(options, names, why):
    batch = DRUGS.batch([NAMES.index(name) for name in names], DOMAIN)
    result = rebuilt(batch, network(pooled=True, **options))
    assert result.certificate.kind == "partial"
    assert why in result.notes[0]
