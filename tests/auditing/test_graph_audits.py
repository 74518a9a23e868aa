"""Audits of graphs, from scenario to verdict."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import invertigo
from invertigo import data, models
from invertigo.auditing import load_scenario
from invertigo.auditing.staging import stage
from invertigo.domains import Graphs
from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.federation import observe
from invertigo.types import Batch, ConfigurationError, InvalidValueError, LocalTraining, ThreatLevel

KARATE = {"data.name": "karate", "data.count": 1, "model.name": "gcn", "normalise": "true", "decoys": 20}


def scenario(**changes):
    settings = KARATE | {"data.indices": "null"} | {key.replace("__", "."): value for key, value in changes.items()}
    return load_scenario("molecules", [f"{key}={value}" for key, value in settings.items()] + ["compare=[]"])


def test_gradient_matching_runs_on_the_rung_that_tells_the_number_of_nodes():
    wanted = scenario(attacks="[{name: graph_dlg, iterations: 5}]", adversary__levels="[1, 2]")
    found = invertigo.audit(wanted)
    assert [(a.level, a.status) for a in found.record.attacks] == [(1, "refused"), (2, "ran")]
    assert found.record.metrics[0].name == "gsm1"
    assert {"one_node", "public_random", "prior_only_graph_dlg"} <= {b.name for b in found.record.baselines}
    assert found.record.attacks[1].residual is not None
    assert "graph" in found.verdict.headline


def test_known_edges_are_used_from_rung_two_on():
    case = stage(scenario(adversary__knows="[adjacency]"))
    assert set(case.observe(ThreatLevel.STATISTICS, 0).observation.knowledge.fields) == {"present", "adjacency"}
    assert not case.observe(ThreatLevel.UPDATE, 0).observation.knowledge.fields
    wanted = scenario(
        adversary__knows="[adjacency]", attacks="[{name: graph_tag, iterations: 3}]", adversary__levels="[2]"
    )
    rebuilt = invertigo.audit(wanted).reconstructions["2-graph_tag/adjacency"]
    assert torch.equal(rebuilt, case.truth["adjacency"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.name": "lenet"}, "reads images, but 'karate' holds graphs"),
        ({"data.name": "digits"}, "reads graphs, but 'digits' holds images"),
        ({"adversary.knows": "[edges]"}, "names 'edges'"),
        ({"data.grayscale": "true"}, "holds graphs"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        stage(scenario(**{key.replace(".", "__"): value for key, value in changes.items()}))


def test_sizes_that_no_graph_has_are_refused():
    with pytest.raises(InvalidValueError, match="2 to 18"):
        stage(scenario(data__nodes="[50, 60]"))


def test_a_layer_narrower_than_the_graph_is_flagged():
    wide, narrow = (stage(scenario(data__indices="[33]", model__options=f"{{hidden: {h}}}")) for h in (32, 8))
    assert [flag.code for flag in wide.remarks] == []
    assert [flag.code for flag in narrow.remarks] == ["narrow_layers"]
    assert "8 wide" in narrow.remarks[0].message


def test_a_user_audits_a_model_and_a_batch_of_her_own():
    circles = data.load("karate")
    domain = circles.domain()
    batch = circles.batch([0, 5], domain)
    model = models.build("gat", input_shape=circles.shape, num_classes=2, hidden=24)
    attack = {"name": "graph_dlg", "iterations": 3}
    found = invertigo.audit(
        model, cross_entropy, batch, domain=domain, attacks=[attack], levels=[2], public=circles, decoys=10
    )
    assert len(found.record.attacks[0].scores["gsm1"]) == 2
    assert found.record.attacks[0].status == "ran"
    batch.fields["adjacency"][0, 0, 0] = 1
    with pytest.raises(InvalidValueError, match="self-loop"):
        invertigo.audit(model, cross_entropy, batch, domain=domain, attacks=[attack])


def test_the_report_shows_graphs_beside_each_other(tmp_path):
    wanted = scenario(attacks="[{name: graph_dlg, iterations: 3}]", adversary__levels="[2]")
    page = invertigo.audit(wanted).save(tmp_path / "r.html").read_text()
    assert page.count("data:image/png") >= 2
    assert "Held, rebuilt</h" in page
    assert "dark violet" not in page


def test_an_exact_attack_rebuilds_the_bundled_molecule():
    pytest.importorskip("rdkit", reason="needs the extra 'graph' (RDKit)")
    found = invertigo.audit(load_scenario("molecules", ["compare=[]", "adversary.levels=[1]"]))
    assert found.record.attacks[0].outcomes == ["exact"]
    assert found.verdict.status == "leaks"


def audited(edges, truth=True, places=16):
    """An audit of one graph of one kind of node, whose degrees are all that is told of them."""
    nodes = 1 + max(map(max, edges))
    adjacency = torch.zeros(nodes, nodes, dtype=torch.bool)
    for a, b in edges:
        adjacency[a, b] = adjacency[b, a] = True
    domain = Graphs((5,), nodes=places, degree_block=0)
    batch = Batch({**domain.encode([LabelledGraph(adjacency.sum(1)[:, None], adjacency)]), "labels": torch.tensor([1])})
    generator = torch.Generator().manual_seed(0)
    model = models.build("gcn", input_shape=(places, 5), num_classes=2, generator=generator, hidden=64)
    if truth:
        return invertigo.audit(model, cross_entropy, batch, domain=domain, attacks="grain")
    task = models.graph_task(model, domain, 2)
    return invertigo.audit(observe(task, batch, LocalTraining(mode="eval"), level=1), attacks="grain")


def test_a_cage_that_is_taken_for_what_it_covers_is_never_said_to_resist():
    """A cube covers the complete graph of four nodes, and has its gradient."""
    cube = [(a, a ^ bit) for a in range(8) for bit in (1, 2, 4) if a < a ^ bit]
    for truth in (True, False):
        found = audited(cube, truth)
        assert found.verdict.status == "inconclusive"
        assert found.record.attacks[0].stopped == "ambiguous"
        assert not any(note.startswith("Exact") for note in found.record.attacks[0].notes)


def test_only_a_graph_without_a_twin_is_certified_without_the_truth():
    """A path of six nodes: a domain of eleven places has no room for two copies of it, one of twelve has."""
    path = [(a, a + 1) for a in range(5)]
    assert audited(path, truth=False, places=11).verdict.status == "leaks"
    assert audited(path, truth=False, places=12).verdict.status == "inconclusive"


def test_a_graph_on_a_short_list_is_recognised():
    """Two triangles joined by an edge, or a ring of six with a chord across: two cubic-like graphs of one gradient."""
    found = audited([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 3)])
    assert found.verdict.status == "leaks"
    assert found.record.attacks[0].outcomes[0] in ("exact", "recognisable")
