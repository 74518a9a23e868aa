"""The graphs domain: its contract, its metrics against naive oracles, its checks and its pictures."""

import io
import json

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import r2_score

from invertigo.domains import Graphs, registry
from invertigo.domains.graph_metrics import compare, hidden_layers
from invertigo.domains.graph_pictures import draw
from invertigo.domains.labelled_graph import LabelledGraph, in_own_order, isomorphism
from invertigo.testing.domains import domain_checks
from invertigo.types import Batch, InvalidValueError, MismatchError

PLAIN = Graphs((3, 2), nodes=6)
SCALED = Graphs((3, 1), nodes=5, mean=(0.5, 0.2, 0.3, 0.9), std=(0.5, 0.0, 0.1, 0.3))


def graph(kinds, edges, domain=PLAIN):
    made = torch.zeros(len(kinds), len(kinds), dtype=torch.bool)
    for a, b in edges:
        made[a, b] = made[b, a] = True
    return LabelledGraph(torch.tensor(kinds), made)


def batch(domain, *graphs, nodes=None):
    return Batch({**domain.encode(graphs, nodes), "labels": torch.zeros(len(graphs), dtype=torch.long)})


def shuffled(one, seed=0):
    order = torch.randperm(len(one), generator=torch.Generator().manual_seed(seed))
    return LabelledGraph(one.kinds[order], one.edges[order][:, order])


CHAIN = graph([[0, 0], [1, 0], [2, 1], [0, 1]], [(0, 1), (1, 2), (2, 3)])
RING = graph([[0, 0], [1, 0], [2, 1], [0, 1]], [(0, 1), (1, 2), (2, 3), (3, 0)])
LONE = graph([[1, 1]], [])


@pytest.mark.usefixtures("untyped")  # the type checker itself draws from Python's global random state
@pytest.mark.parametrize("check", domain_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("domain", [PLAIN, SCALED], ids=lambda domain: str(domain.shape))
def test_the_contract_of_a_domain_holds(check, domain):
    check(domain)


def test_the_registry_knows_it():
    assert registry["graphs"] is Graphs


@pytest.mark.parametrize("domain", [PLAIN, SCALED])
def test_the_configuration_survives_json(domain):
    assert Graphs.from_config(json.loads(json.dumps(domain.config()))) == domain


@given(st.integers(0, 99))
def test_choices_make_the_round_trip_through_the_model_space(seed):
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.stack([torch.randint(w if w > 1 else 2, (4,), generator=generator) for w in SCALED.blocks], 1)
    assert torch.equal(SCALED.choices(SCALED.to_model(SCALED.one_hot(kinds))), kinds)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 3))
def test_isomorphism_agrees_with_networkx_without_refinement(seed, nodes, kinds):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.rand(nodes, nodes, generator=generator).triu(1) > 0.6
    one = LabelledGraph(torch.randint(kinds, (nodes, 1), generator=generator), edges | edges.T)
    changed = one.edges.clone()
    changed[0, -1] = changed[-1, 0] = ~changed[0, -1] if nodes > 1 else changed[0, -1]
    for other in (shuffled(one, seed), shuffled(LabelledGraph(one.kinds, changed), seed)):
        mapping = isomorphism(one, other)
        assert (mapping is not None) == nx.is_isomorphic(
            plain(one), plain(other), node_match=lambda a, b: a["kind"] == b["kind"]
        )
        if mapping is not None:
            assert torch.equal(other.kinds[mapping], one.kinds)
            assert torch.equal(other.edges[mapping][:, mapping], one.edges)


def plain(one):
    made = nx.from_numpy_array(one.edges.numpy())
    nx.set_node_attributes(made, dict(enumerate(one.kinds[:, 0].tolist())), "kind")
    return made


def test_a_shuffled_graph_is_exact_and_everything_is_one():
    scores = PLAIN.score(batch(PLAIN, RING), PLAIN.encode([shuffled(RING)], 9))
    assert {name: pytest.approx(1) for name in scores.per_example} == {
        n: v.item() for n, v in scores.per_example.items()
    }


def test_symmetric_nodes_do_not_cost_an_exact_graph_its_edges():
    ring = graph([[0, 0]] * 6, [(i, (i + 1) % 6) for i in range(6)])
    for seed in range(5):
        assert PLAIN.score(batch(PLAIN, ring), PLAIN.encode([shuffled(ring, seed)])).mean("edges_recall") == 1


def test_one_more_edge_is_not_exact_and_is_counted():
    found = PLAIN.score(batch(PLAIN, CHAIN), PLAIN.encode([RING])).per_example
    assert found["exact"].item() == 0
    assert found["nodes_recall"].item() == found["edges_recall"].item() == 1
    assert found["edges_precision"].item() == pytest.approx(3 / 4)
    assert 0 < found["gsm1"].item() < 1


def test_gsm_agrees_with_its_definition_written_naively():
    pair = graph([[0, 0], [1, 0]], [(0, 1)])
    found = compare(CHAIN, pair, PLAIN._read, PLAIN.blocks)
    ours, theirs = torch.tensor([0, 1]), torch.tensor([0, 1])  # the only nodes that agree in kind
    cut = LabelledGraph(CHAIN.kinds[ours], CHAIN.edges[ours][:, ours])
    true, made = (hidden_layers(g, PLAIN._read, loops=True)[0].flatten() for g in (cut, pair))
    assert found["gsm1"] == pytest.approx(max(0, r2_score(true, made) * 2 / 4))
    assert found["gsm0"] == pytest.approx(2 / 4)
    assert found["nodes_precision"] == 1
    assert found["nodes_recall"] == pytest.approx(2 / 4)
    assert theirs.tolist() == [0, 1]


def test_a_graph_that_nothing_is_left_for_scores_zero():
    scores = PLAIN.score(batch(PLAIN, CHAIN, LONE), PLAIN.encode([CHAIN]))
    assert scores.matching.tolist() == [0, -1]
    assert scores.per_example["gsm0"].tolist() == [1, 0]


def test_padding_does_not_change_a_score():
    few, many = (PLAIN.score(batch(PLAIN, CHAIN, nodes=n), PLAIN.encode([RING], m)) for n, m in ((4, 4), (9, 7)))
    assert few.per_example["gsm1"].item() == pytest.approx(many.per_example["gsm1"].item())


def test_copies_of_the_truth_are_no_baseline_and_no_decoy():
    public = batch(PLAIN, shuffled(RING), CHAIN, LONE)
    truth = batch(PLAIN, RING)
    assert PLAIN.baselines(truth, public)["public_nearest"].mean("exact") == 0
    assert PLAIN.identify(truth, truth.fields, public).decoys == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f["adjacency"][0, 1].fill_(0.0), "does not lead back"),
        (lambda f: f["adjacency"][0, 2, 2].fill_(1.0), "self-loop"),
        (lambda f: f["adjacency"].mul_(0.5), "weight 0.5"),
        (lambda f: f["features"][0, 1, :3].fill_(0.4), "not one-hot"),
        (lambda f: f["features"][0, 5].fill_(1.0), "has features"),
        (lambda f: f["present"].fill_(False), "has no node"),
    ],
)
def test_what_cannot_be_audited_is_refused_with_the_way_out(change, words):
    made = batch(PLAIN, CHAIN)
    change(made.fields)
    with pytest.raises(InvalidValueError, match=words):
        PLAIN.validate(made)


def test_a_graph_larger_than_the_domain_says_is_refused():
    """What `grain` proves about other graphs reaches as far as `nodes` only."""
    assert len(CHAIN) > 2
    small = Graphs(blocks=PLAIN.blocks, nodes=2)
    with pytest.raises(InvalidValueError, match=f"Set nodes to {len(CHAIN)}"):
        small.validate(batch(small, CHAIN))


def test_isolated_nodes_and_several_components_are_remarked_on():
    two = graph([[0, 0], [1, 0], [2, 1]], [(0, 1)])
    assert PLAIN.validate(batch(PLAIN, CHAIN)) == []
    lonely, parts = PLAIN.validate(batch(PLAIN, CHAIN, two, LONE))
    assert lonely.startswith("2 of 3")
    assert parts.startswith("1 of 3")


def test_features_of_another_width_are_refused():
    with pytest.raises(MismatchError, match="5"):
        PLAIN.score(batch(PLAIN, CHAIN), SCALED.encode([graph([[0, 0]], [])]))


@given(st.integers(0, 999))
def test_the_own_order_of_a_graph_does_not_depend_on_the_one_it_came_in(seed):
    for one in (CHAIN, RING, graph([[0, 0]] * 5, [(i, (i + 1) % 5) for i in range(5)])):
        first, second = in_own_order(one), in_own_order(shuffled(one, seed))
        assert torch.equal(first.kinds, second.kinds)
        assert torch.equal(first.edges, second.edges)


def test_a_graph_is_drawn_with_a_disc_for_each_node_and_the_same_whatever_its_order():
    picture = draw(RING, PLAIN.blocks)
    assert picture == draw(shuffled(RING, 3), PLAIN.blocks)
    assert picture != draw(CHAIN, PLAIN.blocks)
    assert Image.open(io.BytesIO(picture)).getextrema() != ((255, 255),) * 3
