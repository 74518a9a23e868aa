"""GRAIN: the graph behind a gradient, what it cannot be told from, and what is said when it cannot be found."""

import dataclasses
import time

import pytest
import torch
from torch import nn

from invertigo import data, models
from invertigo.attacks import reconstruct
from invertigo.domains import Graphs
from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.domains.sameness import parts, same_graph
from invertigo.federation import observe
from invertigo.models import from_geometric, graph_step, graph_task
from invertigo.types import Batch, LocalTraining, RequirementError

DRUGS = data.load("drugs")
DOMAIN = DRUGS.domain(standardise=True)
NAMES = list(DRUGS.names)


def named(*names):
    return [NAMES.index(name) for name in names]


def network(name="gcn", domain=DOMAIN, dtype=torch.float32, seed=0, classes=2, **options):
    generator = torch.Generator().manual_seed(seed)
    shape = (domain.nodes, domain.width)
    return models.build(name, input_shape=shape, num_classes=classes, generator=generator, **options).to(dtype)


def seen(batch, model, domain=DOMAIN, loss="cross_entropy", classes=2, local=None):
    local = local or LocalTraining(mode="eval")
    return observe(graph_task(model, domain, classes, loss=loss), batch, local, level=3 if local.mode == "eval" else 1)


def without_labels(observation):
    return dataclasses.replace(observation, knowledge=dataclasses.replace(observation.knowledge, labels=None))


def described(features, adjacency, domain=DOMAIN):
    kinds = [tuple(row) for row in domain.choices(features).tolist()]
    return kinds, [(row > 0.5).nonzero()[:, 0].tolist() for row in adjacency]


def same(truth, number, features, adjacency, domain=DOMAIN):
    present = truth["present"][number]
    ours = described(truth["features"][number][present], truth["adjacency"][number][present][:, present], domain)
    theirs = described(features, adjacency, domain)
    names = {kind: place for place, kind in enumerate({*ours[0], *theirs[0]})}
    return same_graph([names[k] for k in ours[0]], ours[1], [names[k] for k in theirs[0]], theirs[1])


def first(result, number=0):
    present = result.fields["present"][number]
    return result.fields["features"][number][present], result.fields["adjacency"][number][present][:, present]


SMALL = named("acetaminophen", "aspirin", "caffeine", "ibuprofen", "isoniazid", "metformin", "nicotine")


@pytest.mark.parametrize("index", SMALL, ids=lambda i: NAMES[i])
@pytest.mark.parametrize(("name", "options"), [("gcn", {}), ("gat", {}), ("gcn", {"activation": "gelu"})])
def test_a_drug_with_unknown_size_and_label_comes_back(name, options, index):
    batch = DRUGS.batch([index], DOMAIN)
    result = reconstruct(without_labels(seen(batch, network(name, **options))), "grain")
    assert same(batch, 0, *first(result))
    # There is room for two copies of each in the domain, so none can be exact.
    assert 2 * int(batch["present"].sum()) <= DOMAIN.nodes
    assert result.certificate.kind in ("up to covers", "equivalent")
    assert (result.certificate.kind == "up to covers") == (result.certificate.class_size == 1)
    assert not result.certificate.class_complete
    assert result.stopped == "ambiguous"
    assert result.fields["labels"].tolist() == batch["labels"].tolist()
    assert result.labels_inferred
    assert result.objective < 1e-3
    assert result.certificate.nodes == int(batch["present"].sum())


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
@pytest.mark.parametrize("label", [0, 1])
def test_the_label_is_read_off_either_loss(loss, label):
    batch = DRUGS.batch(named("aspirin"), DOMAIN)
    batch = Batch({**batch.fields, "labels": torch.tensor([label])})
    result = reconstruct(without_labels(seen(batch, network(), loss=loss)), "grain")
    assert result.fields["labels"].tolist() == [label]
    assert same(batch, 0, *first(result))


def test_the_observed_model_is_left_as_it_was():
    model = network("gat").train()
    model.layers[0].register_forward_hook(lambda *_: None)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    reconstruct(seen(DRUGS.batch(named("metformin"), DOMAIN), model), "grain")
    assert model.training
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name])


def test_three_layers():
    batch = DRUGS.batch(named("caffeine"), DOMAIN)
    result = reconstruct(seen(batch, network(layers=3)), "grain")
    assert same(batch, 0, *first(result))
    assert len(result.certificate.ranks) == 4


def test_the_difference_after_one_step_is_as_good_as_its_gradient():
    batch = DRUGS.batch(named("aspirin"), DOMAIN)
    local = LocalTraining(mode="eval", sends="difference", learning_rate=0.1)
    assert same(batch, 0, *first(reconstruct(seen(batch, network(dtype=torch.float64), local=local), "grain")))
    several = seen(batch, network(), local=dataclasses.replace(local, epochs=2))
    with pytest.raises(RequirementError, match="several local steps"):
        reconstruct(several, "grain")


def molecule(kinds, edges):
    """A graph of two groups and the degree, whose kinds need no chemistry."""
    domain = Graphs((4, 3, 5), nodes=len(kinds), degree_block=2)
    matrix = torch.zeros(len(kinds), len(kinds), dtype=torch.bool)
    for a, b in edges:
        matrix[a, b] = matrix[b, a] = True
    made = torch.cat([torch.tensor(kinds), matrix.sum(1)[:, None]], 1)
    fields = domain.encode([LabelledGraph(made, matrix)])
    return domain, Batch({**fields, "labels": torch.tensor([1])})


def rebuilt(kinds, edges, **hyperparameters):
    domain, batch = molecule(kinds, edges)
    model = network(domain=domain, dtype=torch.float64, hidden=200, activation="gelu")
    return domain, batch, reconstruct(seen(batch, model, domain), "grain", **hyperparameters)


def test_two_rings_and_one_large_ring_have_the_same_gradient_and_are_both_listed():
    """A node with two rings of four hanging from it, against one ring of eight tied to it twice."""
    kinds = [(0, 0)] + [(1, 1)] * 2 + [(2, 1)] * 4 + [(3, 2)] * 2
    two = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6), (3, 7), (4, 7), (5, 8), (6, 8)]
    domain, batch, result = rebuilt(kinds, two)
    proof = result.certificate
    assert proof.kind == "equivalent"
    assert proof.class_complete
    assert proof.class_size == len(proof.alternatives) > 1
    hits = [same(batch, 0, g["features"], g["adjacency"], domain) for g in proof.alternatives]
    assert hits.count(True) == 1
    assert "class of" in result.notes[0]


def test_every_listed_graph_has_the_observed_gradient():
    batch = DRUGS.batch([NAMES.index("diphenhydramine")], DOMAIN)
    model = network(dtype=torch.float64)
    observation = seen(batch, model)
    proof = reconstruct(observation, "grain").certificate
    assert proof.kind == "equivalent"
    assert len(proof.alternatives) > 1
    for graph in proof.alternatives:
        fields = {
            "features": graph["features"][None],
            "adjacency": graph["adjacency"][None],
            "present": torch.ones(1, len(graph["features"]), dtype=torch.bool),
            "labels": batch["labels"],
        }
        again = seen(Batch(fields), model)
        for name, tensor in observation.update.tensors.items():
            torch.testing.assert_close(again.update.tensors[name], tensor, rtol=1e-3, atol=1e-8)


def test_a_tree_is_exact_and_a_repeated_one_is_said_to_be_hidden():
    kinds = [(0, 0), (1, 0), (2, 1), (3, 2), (0, 1), (2, 0)]
    domain, batch, result = rebuilt(kinds, [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5)])
    assert result.certificate.kind == "exact"
    assert result.stopped == "exact"
    assert same(batch, 0, *first(result), domain)
    assert any("identical copies" in text for text in result.certificate.assumes)
    assert any("identical copies" in note for note in result.notes)
    assert not any("cycle" in text for text in result.certificate.assumes)
    roomy = dataclasses.replace(domain, nodes=20)
    model = network(domain=domain, dtype=torch.float64, hidden=200, activation="gelu")
    assert reconstruct(seen(batch, model, roomy), "grain").certificate.kind == "up to covers"
    sized = reconstruct(seen(batch, model, roomy), "grain", sized=True).certificate
    assert sized.kind == "exact"
    assert "the adversary knows" in sized.assumes[0]


def test_several_parts_come_back_and_are_never_called_exact():
    kinds = [(0, 0), (1, 0), (2, 1), (3, 2), (0, 1)]
    domain, batch, result = rebuilt(kinds, [(0, 1), (1, 2), (3, 4)])
    assert same(batch, 0, *first(result), domain)
    assert result.certificate.kind == "equivalent"
    assert len(result.certificate.alternatives[-1]["features"]) == 2 * len(kinds)


def molecules(smiles, **options):
    """What comes back of a molecule, with the molecule."""
    pytest.importorskip("rdkit")
    from invertigo.domains.molecules import parse

    graph = parse(smiles)
    batch = Batch({**DOMAIN.encode([graph]), "labels": torch.tensor([0])})
    return batch, reconstruct(without_labels(seen(batch, network(dtype=torch.float64))), "grain", **options)


def test_two_identical_ions_are_one_of_a_class_and_never_exact():
    batch, result = molecules("CC[N+](C)(C)C.CC[N+](C)(C)C")
    proof = result.certificate
    assert proof.kind == "equivalent"
    hits = [same(batch, 0, g["features"], g["adjacency"]) for g in proof.alternatives]
    assert sum(map(bool, hits)) == 1
    assert len(proof.alternatives[hits.index(True)]["features"]) == 2 * proof.nodes
    assert "charge of +1" in result.notes[0]


def test_a_radical_is_not_called_exact():
    proof = molecules("CC[CH]O")[1].certificate
    assert proof.kind == "equivalent"
    assert "electrons" in proof.reason


def test_a_ring_is_found_up_to_its_covers_which_are_named():
    proof = molecules("Cc1ccncc1")[1].certificate
    assert proof.kind == "up to covers"
    assert any("covers" in text for text in proof.assumes)
    assert any("atom is one that can exist" in text for text in proof.assumes)
    assert all("can exist" not in text for text in molecules("CCO", chemistry=False)[1].certificate.assumes)


def test_a_ring_whose_bonds_may_close_two_smaller_rings_is_one_of_two_graphs():
    """Of paracetamol's ring the gradient tells pairs of neighbours only: two rings of three have them as well."""
    batch, result = molecules("CC(=O)Nc1ccc(O)cc1")
    proof = result.certificate
    assert proof.kind == "equivalent"
    assert sum(same(batch, 0, g["features"], g["adjacency"]) for g in proof.alternatives) == 1
    (other,) = [g for g in proof.alternatives if not same(batch, 0, g["features"], g["adjacency"])]
    assert len(parts([row.nonzero()[:, 0].tolist() for row in other["adjacency"]])) == 2


def test_a_clique_of_alike_nodes_comes_back_whole():
    """Its shares say one node; each wants nine others like it, so there are at least ten."""
    pairs = [(a, b) for a in range(10) for b in range(a)]
    domain = Graphs((12,), nodes=10, degree_block=0)
    edges = torch.zeros(10, 10, dtype=torch.bool)
    for a, b in pairs:
        edges[a, b] = edges[b, a] = True
    batch = Batch({**domain.encode([LabelledGraph(edges.sum(1)[:, None], edges)]), "labels": torch.tensor([1])})
    result = reconstruct(without_labels(seen(batch, network(domain=domain, dtype=torch.float64), domain)), "grain")
    assert same(batch, 0, *first(result), domain)


def test_an_isolated_node():
    domain, batch, result = rebuilt([(1, 2)], [])
    assert same(batch, 0, *first(result), domain)


def test_a_singular_adjacency_hides_blocks_that_are_found_by_their_direction():
    index = NAMES.index("isoniazid")
    graph = DRUGS.graphs[index]
    looped = graph.edges.double() + torch.eye(len(graph), dtype=torch.float64)
    assert torch.linalg.matrix_rank(looped) < len(graph)
    batch = DRUGS.batch([index], DOMAIN)
    assert same(batch, 0, *first(reconstruct(seen(batch, network()), "grain")))


def test_without_a_degree_feature():
    domain = Graphs((4, 3), nodes=6)
    edges = torch.zeros(6, 6, dtype=torch.bool)
    for a, b in [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5)]:
        edges[a, b] = edges[b, a] = True
    kinds = torch.tensor([(0, 0), (1, 0), (2, 1), (3, 2), (0, 1), (2, 0)])
    batch = Batch({**domain.encode([LabelledGraph(kinds, edges)]), "labels": torch.tensor([0])})
    model = network("gat", domain, torch.float64, hidden=64)
    result = reconstruct(seen(batch, model, domain), "grain", most_degree=3)
    assert same(batch, 0, *first(result), domain)


def test_a_vocabulary_confines_the_kinds():
    batch = DRUGS.batch(named("aspirin"), DOMAIN)
    known = DRUGS.one_hot().unique(dim=0)
    domain = dataclasses.replace(DOMAIN, vocabulary=known)
    few = reconstruct(seen(batch, network(domain=domain), domain), "grain", chemistry=False)
    many = reconstruct(seen(batch, network()), "grain", chemistry=False)
    assert same(batch, 0, *first(few))
    assert same(batch, 0, *first(many))
    assert few.certificate.candidates["nodes"] < many.certificate.candidates["nodes"]


def test_the_budget_ends_with_a_partial_answer_that_says_so():
    batch = DRUGS.batch(named("caffeine"), DOMAIN)
    result = reconstruct(seen(batch, network()), "grain", seconds=0.0)
    assert result.certificate.kind == "partial"
    assert result.stopped == "budget"
    assert "budget" in result.notes[0]
    assert torch.isfinite(result.fields["features"]).all()


def test_a_hidden_layer_narrower_than_the_graph_tells_too_little_and_that_is_said():
    batch = DRUGS.batch(named("caffeine"), DOMAIN)
    result = reconstruct(seen(batch, network(hidden=6)), "grain", seconds=5)
    assert result.certificate.kind == "partial"
    assert "rank" in " ".join(result.notes)


def test_a_frozen_layer_is_refused_with_the_reason():
    model = network()
    model.layers[1].linear.weight.requires_grad_(False)
    with pytest.raises(RequirementError, match="layer 1"):
        reconstruct(seen(DRUGS.batch(named("aspirin"), DOMAIN), model), "grain")


def test_other_models_are_refused_with_what_to_do():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(DOMAIN.width, 2)

        def forward(self, features, adjacency, present):
            return self.head(features.sum(1))

    with pytest.raises(RequirementError, match="from_geometric"):
        reconstruct(seen(DRUGS.batch(named("aspirin"), DOMAIN), Other()), "grain")


@pytest.mark.parametrize("kind", ["GCNConv", "GATConv"])
def test_a_model_of_geometrics_layers_is_read(kind):
    pyg = pytest.importorskip("torch_geometric.nn")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [getattr(pyg, kind)(DOMAIN.width, 300), getattr(pyg, kind)(300, 300)]
        head = nn.Sequential(nn.Linear(300, 64), nn.ReLU(), nn.Linear(64, 2))
    model = from_geometric(layers, head, activation=nn.ReLU(), pool_first=False)
    batch = DRUGS.batch(named("acetaminophen"), DOMAIN)
    assert same(batch, 0, *first(reconstruct(seen(batch, model), "grain", seconds=20)))


def test_noise_of_known_size_is_met_with_looser_checks():
    """Noise far under the signal changes the ranks unless the attack is told of it."""
    batch = DRUGS.batch(named("aspirin"), DOMAIN)
    observation = seen(batch, network(dtype=torch.float64))
    generator = torch.Generator().manual_seed(3)
    std = 1e-9
    noisy = {
        name: tensor + std * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        for name, tensor in observation.update.tensors.items()
    }
    update = dataclasses.replace(observation.update, tensors=noisy)
    informed = reconstruct(dataclasses.replace(observation, update=update), "grain", noise=std)
    assert same(batch, 0, *first(informed))


@pytest.mark.parametrize("names", [("aspirin", "caffeine"), ("metformin", "acetaminophen", "ibuprofen")])
@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_a_batch_of_graphs_is_taken_apart(name, names):
    batch = DRUGS.batch(named(*names), DOMAIN)
    result = reconstruct(without_labels(seen(batch, network(name))), "grain")
    assert len(result.certificate.parts) == len(names)
    rest = list(range(len(names)))
    for truth in range(len(names)):
        (match,) = [g for g in rest if same(batch, truth, *first(result, g))]
        assert int(result.fields["labels"][match]) == int(batch["labels"][truth])
        rest.remove(match)
    assert "graphs" in result.notes[0]


def test_a_hub_among_nodes_with_many_words_is_read_off_its_neighbours():
    """Seventy yes-or-no columns and a degree: kinds are corners of a box, edges are known from the far end."""
    generator = torch.Generator().manual_seed(5)
    nodes, words = 14, 200
    edges = torch.zeros(nodes, nodes, dtype=torch.bool)
    for a, b in [(0, i) for i in range(1, 11)] + [(1, 2), (10, 11), (11, 12), (12, 13)]:
        edges[a, b] = edges[b, a] = True
    kinds = torch.cat([(torch.rand(nodes, words, generator=generator) < 0.05).long(), edges.sum(1)[:, None]], 1)
    # Words that hardly any node has, as in a text: the attacker knows how frequent each is.
    share = tuple([0.05] * words + [0.1] * 12)
    domain = Graphs((1,) * words + (12,), nodes=nodes, degree_block=words, mean=share, std=(0.22,) * (words + 12))
    batch = Batch({**domain.encode([LabelledGraph(kinds, edges)]), "labels": torch.tensor([1])})
    result = reconstruct(without_labels(seen(batch, network(domain=domain), domain)), "grain", seconds=20)
    assert result.certificate.kind == "exact", result.notes
    assert same(batch, 0, *first(result), domain)
    assert not any("two neighbours" in text for text in result.certificate.assumes)


def papers(edges, words=200, seed=5, twins=()):
    """A graph of papers with rare words and a degree; `twins` have the words of another one."""
    nodes, generator = 1 + max(map(max, edges)), torch.Generator().manual_seed(seed)
    linked = torch.zeros(nodes, nodes, dtype=torch.bool)
    for a, b in edges:
        linked[a, b] = linked[b, a] = True
    held = (torch.rand(nodes, words, generator=generator) < 0.05).long()
    for one, other in twins:
        held[one] = held[other]
    kinds = torch.cat([held, linked.sum(1)[:, None]], 1)
    share = tuple([0.05] * words + [0.1] * 12)
    domain = Graphs((1,) * words + (12,), nodes=nodes, degree_block=words, mean=share, std=(0.22,) * (words + 12))
    return domain, Batch({**domain.encode([LabelledGraph(kinds, linked)]), "labels": torch.tensor([1])})


def test_papers_whose_blocks_a_singular_adjacency_hides_are_told_by_their_neighbours():
    """A path of eight: -1 is an eigenvalue of its adjacency, so that no row space shows six of the blocks."""
    domain, batch = papers([(i, i + 1) for i in range(7)])
    looped = batch["adjacency"][0].double() + torch.eye(8, dtype=torch.float64)
    assert torch.linalg.matrix_rank(looped) == 7
    result = reconstruct(without_labels(seen(batch, network(domain=domain), domain)), "grain", seconds=20)
    assert same(batch, 0, *first(result), domain), result.notes
    assert any("singular adjacency" in text for text in result.certificate.assumes)


def test_two_papers_with_the_same_words_are_two():
    edges = [(0, i) for i in range(1, 8)] + [(1, 2), (7, 8), (8, 9), (3, 10)]
    domain, batch = papers(edges, twins=[(10, 9)])
    result = reconstruct(without_labels(seen(batch, network(domain=domain), domain)), "grain", seconds=20)
    assert same(batch, 0, *first(result), domain), result.notes


@pytest.mark.parametrize("circle", [1, 5])
def test_neighbours_that_are_solved_for_are_those_that_a_search_finds(circle):
    """Circles of friends, whose hub has many neighbours of few kinds."""
    from invertigo.attacks.exact.grain.anatomy import dissect
    from invertigo.attacks.exact.grain.attack import precise_model
    from invertigo.attacks.exact.grain.blocks import check_of
    from invertigo.attacks.exact.grain.budget import Budget
    from invertigo.attacks.exact.grain.larger_blocks import around_each
    from invertigo.attacks.exact.grain.linear_counts import countings
    from invertigo.attacks.exact.grain.multisets import ways
    from invertigo.attacks.exact.grain.pipeline import Evidence, gather

    club = data.load("karate")
    domain, budget = club.domain(standardise=True), Budget(60.0)
    observation = seen(club.batch([circle], domain), network(domain=domain, dtype=torch.float64), domain)
    with torch.no_grad():
        anatomy, evidence = dissect(observation, precise_model(observation), None), Evidence(domain)
        gather(anatomy, evidence, budget, most_degree=18, most_nodes=40, scores=None, tolerance=None)
        check = check_of(anatomy, 1, evidence.levels[1], evidence.features)
        found = 0
        for centre, groups in around_each(check, evidence.levels[1]):
            if ways(groups) <= 200_000:
                solved = check.choose(centre, countings(check, centre, groups, budget))[0]
                assert sorted(solved) == sorted(check.search(centre, groups, budget)[0])
                found += len(solved)
    assert found


@pytest.mark.parametrize("distinct", [False, True])
def test_neighbours_are_chosen_in_every_way_once_however_small_the_tables(distinct, monkeypatch):
    from itertools import combinations, combinations_with_replacement, product

    from invertigo.attacks.exact.grain import multisets

    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    choose = combinations if distinct else combinations_with_replacement
    options = [[0, 2, 3, 5, 6, 7], [1, 4, 8], []]
    for counts in ([4], [4, 2], [2, 3], [5, 0], [3, 1, 1]):
        groups = [
            multisets.Slots(torch.tensor(o, dtype=torch.long), parts[o], count, distinct)
            for o, count in zip(options, counts)
        ]
        ways = [choose(o, count) for o, count in zip(options, counts)]
        wanted = sorted(tuple(sorted(sum(choice, ()))) for choice in product(*ways))
        for chunk, table in ((1 << 16, 10**7), (8, 100), (4, 1)):
            monkeypatch.setattr(multisets, "CHUNK", chunk)
            monkeypatch.setattr(multisets, "LARGEST_TABLE", table)
            found = [*multisets.fillings(groups, parts[0])]
            assert sorted(tuple(sorted(row)) for chosen, _ in found for row in chosen.tolist()) == wanted
            for chosen, sums in found:
                torch.testing.assert_close(sums, parts[0] + parts[chosen].sum(1))


def ego_network():
    """An actor with 24 colleagues, most of them from three films: some 10^9 neighbourhoods fit at first sight."""
    films = [range(1, 8), range(7, 15), range(14, 25), (2, 9, 16, 20), (3, 10)]
    edges = torch.zeros(25, 25, dtype=torch.bool)
    for a, b in {(0, i) for i in range(1, 25)} | {(a, b) for film in films for a in film for b in film if a < b}:
        edges[a, b] = edges[b, a] = True
    domain = Graphs((26,), nodes=25, degree_block=0)
    batch = Batch({**domain.encode([LabelledGraph(edges.sum(1)[:, None], edges)]), "labels": torch.tensor([1])})
    return seen(batch, network(domain=domain, dtype=torch.float64), domain)


def hub_of_papers():
    domain, batch = papers([(0, i) for i in range(1, 11)] + [(1, 2), (10, 11), (11, 12), (12, 13)])
    return seen(batch, network(domain=domain), domain)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("observed", [ego_network, hub_of_papers], ids=["ego network", "papers"])
def test_every_stage_keeps_to_the_budget(observed, seconds):
    observation = observed()
    started = time.process_time()
    result = reconstruct(observation, "grain", seconds=seconds)
    assert time.process_time() - started < seconds + 1.0
    proof = result.certificate
    if proof.kind == "partial":
        assert "budget ended" in result.notes[0]
        kinds = {tuple(row) for row in observation.task.domain.choices(proof.alternatives[0]["features"]).tolist()}
        assert proof.certain_nodes <= len(kinds)


def test_graphs_found_before_the_budget_ends_are_returned_as_a_class_that_is_not_complete():
    from invertigo.attacks.exact.grain.budget import Budget
    from invertigo.attacks.exact.grain.equivalents import equivalent_graphs

    # Twelve alike nodes of degree three: many cubic graphs, and no time to list them all.
    own, around = [0], [(0, 0, 0)]
    given: dict = {"aromatic": None, "most_nodes": 64, "most": 10**6, "seconds": 10.0}
    found = equivalent_graphs(own, around, [[12]], Budget(0.5), **given)
    assert found.members
    assert not found.complete


def informed(observation, **view):
    from invertigo.types.view import AdversaryView

    known = dataclasses.replace(observation.knowledge, view=AdversaryView("the defense", **view))
    return dataclasses.replace(observation, knowledge=known)


def test_the_noise_that_an_informed_adversary_reckons_with_sets_the_checks():
    batch = DRUGS.batch(named("aspirin"), DOMAIN)
    observation = seen(batch, network(dtype=torch.float64))
    generator = torch.Generator().manual_seed(3)
    noisy = {
        name: tensor + 1e-9 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        for name, tensor in observation.update.tensors.items()
    }
    observation = dataclasses.replace(observation, update=dataclasses.replace(observation.update, tensors=noisy))
    told = informed(observation, noise_std=dict.fromkeys(noisy, 1e-9))
    assert same(batch, 0, *first(reconstruct(told, "grain")))


def test_hidden_rows_do_no_harm_and_hidden_entries_are_refused_with_the_reason():
    batch = DRUGS.batch(named("aspirin"), DOMAIN)
    observation = seen(batch, network())
    name = "layers.1.linear.weight"
    rows = torch.ones_like(observation.update.tensors[name])
    rows[::3] = 0
    kept = {**observation.update.tensors, name: observation.update.tensors[name] * rows}
    sparse = dataclasses.replace(observation, update=dataclasses.replace(observation.update, tensors=kept))
    assert same(batch, 0, *first(reconstruct(informed(sparse, visible={name: rows}), "grain")))
    torn = rows.clone()
    torn[1, :5] = 0
    with pytest.raises(RequirementError, match="row space"):
        reconstruct(informed(observation, visible={name: torn}), "grain")


@pytest.mark.parametrize(
    ("layer", "where"), [("layers.0", "layer 0"), ("layers.1", "layer 1"), ("readout", "the read")]
)
def test_a_wholly_hidden_layer_is_refused_with_the_reason(layer, where):
    observation = seen(DRUGS.batch(named("aspirin"), DOMAIN), network())
    sent = {name: t * (not name.startswith(layer)) for name, t in observation.update.tensors.items()}
    blanked = dataclasses.replace(observation, update=dataclasses.replace(observation.update, tensors=sent))
    with pytest.raises(RequirementError, match=f"no gradient of the weight of {where}"):
        reconstruct(blanked, "grain")
    told = informed(observation, visible={n: torch.zeros_like(t) for n, t in sent.items() if n.startswith(layer)})
    with pytest.raises(RequirementError, match="The defense hides"):
        reconstruct(told, "grain")


def test_a_loss_with_weights_of_its_own_gets_answers_in_its_precision():
    batch, model = DRUGS.batch(named("aspirin"), DOMAIN), network()
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0]))
    task = graph_task(model, DOMAIN, 2)
    task = dataclasses.replace(task, loss=weighted, step_loss=graph_step(weighted))
    observation = without_labels(observe(task, batch, LocalTraining(mode="eval"), level=3))
    result = reconstruct(observation, "grain")
    assert same(batch, 0, *first(result))
    assert result.objective < 1e-4
