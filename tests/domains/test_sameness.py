"""Isomorphism of coloured graphs: right where networkx is, and bounded where networkx never ends."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invertigo.domains.labelled_graph import LabelledGraph, isomorphism
from invertigo.domains.sameness import Undecided, matching_nodes, same_graph


def near_of(graph):
    return [sorted(graph[node]) for node in range(len(graph))]


def shuffled(graph, colours, seed):
    order = torch.randperm(len(graph), generator=torch.Generator().manual_seed(seed)).tolist()
    moved = nx.relabel_nodes(graph, dict(enumerate(order)))
    tints = [0] * len(order)
    for old, new in enumerate(order):
        tints[new] = colours[old]
    return near_of(moved), tints


def salt(copies, spare):
    """Branched, fully symmetric ions, and one smaller ion."""
    ion = nx.balanced_tree(3, 2)
    return nx.disjoint_union_all([ion] * copies + [spare])


def test_a_symmetric_salt_takes_a_few_refinements():
    graph = salt(6, nx.path_graph(2))
    colours = [0] * len(graph)
    near, tints = shuffled(graph, colours, 3)
    found = matching_nodes(colours, near_of(graph), tints, near, most=80)
    assert found is not None
    assert sorted(found) == list(range(len(graph)))
    assert all({found[v] for v in graph[u]} == set(near[found[u]]) for u in graph)


def test_symmetric_salts_that_differ_in_one_ion_are_told_apart_in_a_few_refinements():
    ring = nx.cycle_graph(6)
    triangles = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    left, right = salt(6, ring), salt(6, triangles)
    nothing = [0] * len(left)
    assert same_graph(nothing, near_of(left), nothing, near_of(right), most=200) is False


def test_labelled_salts_go_the_same_way():
    graph = salt(5, nx.path_graph(3))
    edges = torch.from_numpy(nx.to_numpy_array(graph, nodelist=sorted(graph))) > 0
    order = torch.randperm(len(graph), generator=torch.Generator().manual_seed(0))
    kinds = edges.sum(1)[:, None]
    one, other = LabelledGraph(kinds, edges), LabelledGraph(kinds[order], edges[order][:, order])
    mapping = isomorphism(one, other)
    assert mapping is not None
    assert torch.equal(other.edges[mapping][:, mapping], edges)


def test_too_few_refinements_leave_it_undecided():
    near = near_of(nx.petersen_graph())
    assert same_graph([0] * 10, near, [0] * 10, near, most=1) is None
    with pytest.raises(Undecided):
        matching_nodes([0] * 10, near, [0] * 10, near, most=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 3))
def test_it_agrees_with_networkx(seed, nodes, kinds):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(2):
        graph = nx.gnp_random_graph(nodes, 0.35, seed=int(torch.randint(10**6, (), generator=generator)))
        colours = torch.randint(kinds, (nodes,), generator=generator).tolist()
        nx.set_node_attributes(graph, dict(enumerate(colours)), "c")
        made.append((graph, colours))
    (one, a), (other, b) = made
    expected = nx.is_isomorphic(one, other, node_match=lambda x, y: x["c"] == y["c"])
    assert same_graph(a, near_of(one), b, near_of(other)) is expected
    near, tints = shuffled(one, a, seed)
    assert same_graph(a, near_of(one), tints, near) is True
