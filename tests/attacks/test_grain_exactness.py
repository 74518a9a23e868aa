"""No graph is called exact that has a twin: all small graphs, copies and covers among them, against plain autograd."""

import copy
import dataclasses
import time
from functools import cache
from itertools import combinations, product

import networkx as nx
import pytest
import torch
from torch.nn import functional as F

from invertigo import models
from invertigo.attacks import reconstruct
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.degree_sequences import any_graph, bipartite, graphical
from invertigo.attacks.exact.grain.equivalents import equivalent_graphs
from invertigo.attacks.exact.grain.realisation import instances
from invertigo.domains import Graphs
from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.federation import observe
from invertigo.models import graph_task
from invertigo.types import Batch, LocalTraining

MODELS = {
    "gcn": ("gcn", {}),
    "gcn as in geometric": ("gcn", {"concatenate": False, "bias": True}),
    "gcn of three layers": ("gcn", {"layers": 3}),
    "gat": ("gat", {}),
    "gat without residual": ("gat", {"skip": False}),
}
SAME, OTHER = 1e-7, 1e-4


def alike(left, right):
    return nx.is_isomorphic(left, right, node_match=lambda a, b: a["kind"] == b["kind"])


@cache
def all_graphs(nodes, kinds):
    """Every graph of up to so many nodes of so many kinds, once."""
    found = []
    for graph in (g for g in nx.graph_atlas_g() if 1 <= len(g) <= nodes):
        forms = {}
        for drawn in product(range(kinds), repeat=len(graph)):
            made = nx.Graph(graph)
            nx.set_node_attributes(made, dict(enumerate(drawn)), "kind")
            same = forms.setdefault(nx.weisfeiler_lehman_graph_hash(made, node_attr="kind"), [])
            if not any(alike(made, other) for other in same):
                same.append(made)
        found += [graph for same in forms.values() for graph in same]
    return found


def domain_of(nodes, kinds, degrees=True):
    """One group of kinds, and the degree as a group of its own."""
    return Graphs((max(kinds, 2), nodes), nodes, degree_block=1) if degrees else Graphs((max(kinds, 2),), nodes)


def encoded(graph, domain):
    edges = torch.from_numpy(nx.to_numpy_array(graph)).bool()
    kinds = torch.tensor([[kind] for _, kind in graph.nodes(data="kind")])
    if domain.degree_block is not None:
        kinds = torch.cat([kinds, edges.sum(1)[:, None]], 1)
    return domain.encode([LabelledGraph(kinds, edges)])


@cache
def network(name, domain):
    kind, options = MODELS[name]
    shape, generator = (domain.nodes, domain.width), torch.Generator().manual_seed(1)
    return models.build(kind, input_shape=shape, num_classes=2, generator=generator, hidden=64, **options)


@cache
def gradients(name, domain, kinds):
    """(graph, entry) of all graphs with label 1, by autograd alone in double precision."""
    model = copy.deepcopy(network(name, domain)).double()
    made = []
    for graph in all_graphs(domain.nodes, kinds):
        read = [t.double() if t.is_floating_point() else t for t in encoded(graph, domain).values()]
        loss = F.cross_entropy(model(*read), torch.tensor([1]))
        made.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(made)


def twins(name, domain, kinds, place):
    """The graphs with the same gradient as one of them; none may be in between."""
    every = gradients(name, domain, kinds)
    distance = (every - every[place]).norm(dim=1) / every[place].norm()
    assert not ((distance > SAME) & (distance < OTHER)).any()
    return [all_graphs(domain.nodes, kinds)[p] for p in (distance < SAME).nonzero()[:, 0].tolist()]


def recovered(name, domain, graph, **options):
    batch = Batch({**encoded(graph, domain), "labels": torch.tensor([1])})
    observation = observe(graph_task(network(name, domain), domain, 2), batch, LocalTraining(mode="eval"), level=1)
    return reconstruct(observation, "grain", seconds=2, **options).certificate


def listed(proof, domain):
    made = []
    for graph in proof.alternatives:
        edges = nx.from_numpy_array(graph["adjacency"].numpy())
        nx.set_node_attributes(edges, dict(enumerate(domain.choices(graph["features"])[:, 0].tolist())), "kind")
        made.append(edges)
    return made


def check(name, domain, kinds, place):
    """What the attack says of one graph, after comparing it with what autograd says of all of them."""
    truth, proof = (
        all_graphs(domain.nodes, kinds)[place],
        recovered(name, domain, all_graphs(domain.nodes, kinds)[place]),
    )
    same, found = twins(name, domain, kinds, place), listed(proof, domain)
    if proof.kind == "exact":
        assert len(same) == 1
        assert alike(found[0], truth)
    if proof.kind == "up to covers":
        assert [len(g) for g in same].count(proof.nodes) == 1
        assert all(len(g) % proof.nodes == 0 for g in same)
    if proof.class_complete:
        assert all(any(alike(graph, other) for other in found) for graph in same)
    if proof.kind != "partial":
        # Two copies may be listed that are larger than the domain allows.
        assert all(any(alike(g, other) for other in same) for g in found if len(g) <= domain.nodes)
    return proof.kind, len(same)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_called_exact_is_the_only_small_graph_with_its_gradient(name):
    domain, count = domain_of(4, 2), len(all_graphs(4, 2))
    told = [check(name, domain, 2, place) for place in range(0, count, 12)]
    assert any(kind == "exact" for kind, _ in told)
    assert any(same > 1 for _, same in told)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_so_it_is_where_no_feature_tells_the_degree(name):
    domain, count = domain_of(4, 2, degrees=False), len(all_graphs(4, 2))
    for place in range(0, count, 8):
        check(name, domain, 2, place)


@pytest.mark.parametrize("name", ["gcn", "gat without residual"])
def test_of_one_kind_of_node_regular_graphs_have_twins_of_other_sizes(name):
    domain = domain_of(6, 1)
    places = [p for p, g in enumerate(all_graphs(6, 1)) if len(set(dict(g.degree).values())) == 1 and len(g) > 2]
    for place in places[::3]:
        kind, same = check(name, domain, 1, place)
        assert kind != "exact" or same == 1


def rings(nodes, kinds):
    graph = nx.cycle_graph(nodes)
    nx.set_node_attributes(graph, {node: node % kinds for node in graph}, "kind")
    return graph


CAGES = {
    "cube": nx.hypercube_graph(3),
    "dodecahedron": nx.dodecahedral_graph(),
    "prism": nx.circular_ladder_graph(3),
    "ring": nx.cycle_graph(12),
    "complete bipartite": nx.complete_bipartite_graph(4, 6),
}


@pytest.mark.parametrize("name", ["gcn"])
@pytest.mark.parametrize("cage", CAGES)
def test_a_cage_is_exact_only_as_itself(name, cage):
    graph = nx.convert_node_labels_to_integers(CAGES[cage])
    nx.set_node_attributes(graph, 0, "kind")
    proof = recovered(name, Graphs((2, 12), len(graph), degree_block=1), graph, listing_seconds=0.2)
    found = listed(proof, Graphs((2, 12), 30))
    assert proof.kind == ("exact" if cage == "complete bipartite" else "equivalent")
    assert proof.kind != "exact" or alike(found[0], graph)
    assert not proof.class_complete or any(alike(graph, other) for other in found)


def test_a_known_number_of_nodes_leaves_one_cube_among_five_cubic_graphs():
    """There are five connected cubic graphs of eight nodes, and two complete graphs of four are a sixth."""
    graph = nx.convert_node_labels_to_integers(CAGES["cube"])
    nx.set_node_attributes(graph, 0, "kind")
    domain = Graphs((2, 12), 40, degree_block=1)
    batch = Batch({**encoded(graph, domain), "labels": torch.tensor([1])})
    observation = observe(graph_task(network("gcn", domain), domain, 2), batch, LocalTraining(mode="eval"), level=2)
    proof = reconstruct(observation, "grain", sized=True).certificate
    assert (proof.kind, proof.class_size, proof.class_complete) == ("equivalent", 6, True)
    assert sum(alike(graph, other) for other in listed(proof, domain)) == 1


def test_a_double_cover_has_the_gradient_of_what_it_covers():
    """A ring of twelve around one of six: the gradients agree, so that neither can be exact where both fit."""
    domain = Graphs((3, 4), 12, degree_block=1)
    small, large = rings(6, 3), rings(12, 3)
    model = copy.deepcopy(network("gcn", domain)).double()
    made = []
    for graph in (small, large):
        read = [t.double() if t.is_floating_point() else t for t in encoded(graph, domain).values()]
        loss = F.cross_entropy(model(*read), torch.tensor([1]))
        made.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    torch.testing.assert_close(*made)
    for graph in (small, large):
        proof = recovered("gcn", domain, graph)
        assert proof.kind == "equivalent"
        assert proof.class_complete
        assert {len(other) for other in listed(proof, domain)} >= {6, 12}


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_degree_sequences_are_those_of_some_graph(nodes):
    """Against all graphs on so many nodes."""
    pairs = list(combinations(range(nodes), 2))
    there = set()
    for chosen in product([False, True], repeat=len(pairs)):
        degrees = [0] * nodes
        for (a, b), kept in zip(pairs, chosen):
            degrees[a] += kept
            degrees[b] += kept
        there.add(tuple(degrees))
    for degrees in product(range(nodes), repeat=nodes):
        assert graphical(list(degrees)) == (degrees in there)


def test_bipartite_degrees_are_those_of_some_graph():
    there = set()
    for chosen in product([0, 1], repeat=6):
        left = tuple(sum(chosen[3 * a : 3 * a + 3]) for a in range(2))
        there.add((left, tuple(chosen[b] + chosen[3 + b] for b in range(3))))
    for left, right in product(product(range(4), repeat=2), product(range(3), repeat=3)):
        assert bipartite(list(left), list(right)) == ((left, right) in there)


def test_edge_switches_reach_every_graph():
    """Cubic graphs: 1, 2, 6 and 21 of 4, 6, 8 and 10 nodes, connected or not (OEIS A005638)."""
    for nodes, count in ((4, 1), (6, 2), (8, 6)):
        made = equivalent_graphs(
            [0], [(0, 0, 0)], [[nodes]], Budget(20.0), aromatic=None, most_nodes=nodes, most=100, seconds=20.0
        )
        assert (len(made), made.complete) == (count, True)


def test_a_graph_is_made_of_any_degrees_that_have_one():
    wanted = instances([0, 1], [(0, 0, 1), (0, 0)], [4, 2])
    edges = any_graph(wanted)
    assert edges is not None
    near = nx.Graph(sorted(edges))
    for node in near:
        assert sorted(wanted.own[other] for other in near[node]) == sorted(wanted.around[node])


def test_the_domain_with_more_room_is_not_called_exact():
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: 0, 1: 1, 2: 1}, "kind")
    tight, roomy = (recovered("gcn", domain_of(nodes, 2), graph) for nodes in (5, 40))
    assert tight.kind == "exact"
    assert roomy.kind == "up to covers"
    assert dataclasses.asdict(roomy)["class_complete"] is False


@pytest.mark.parametrize("name", ["gcn of three layers", "gat without residual"])
def test_the_seconds_given_are_kept(name):
    """A ring of alternating kinds without degrees: far more neighbourhoods fit than can be gone through."""
    graph, domain = rings(12, 3), domain_of(12, 3, degrees=False)
    batch = Batch({**encoded(graph, domain), "labels": torch.tensor([1])})
    observation = observe(graph_task(network(name, domain), domain, 2), batch, LocalTraining(mode="eval"), level=1)
    started = time.process_time()
    reconstruct(observation, "grain", seconds=1.0)
    assert time.process_time() - started < 2.1
