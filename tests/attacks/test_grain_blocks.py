"""Neighbourhoods checked together are those that pass alone, and the molecule's own are among them."""

from collections import Counter

import pytest
import torch

from invertigo import data, models
from invertigo.attacks.exact.grain.anatomy import dissect
from invertigo.attacks.exact.grain.attack import precise_model
from invertigo.attacks.exact.grain.blocks import check_of, first_blocks, slots
from invertigo.attacks.exact.grain.budget import Budget
from invertigo.attacks.exact.grain.chemistry import possible_atoms
from invertigo.attacks.exact.grain.pipeline import Evidence, kinds_of_nodes
from invertigo.federation import observe
from invertigo.types import LocalTraining

DRUGS = data.load("drugs")
DOMAIN = DRUGS.domain(standardise=True)
ASPIRIN = list(DRUGS.names).index("aspirin")


@pytest.fixture(params=["gcn", "gat"])
def found(request):
    shape = (DOMAIN.nodes, DOMAIN.width)
    generator = torch.Generator().manual_seed(0)
    model = models.build(request.param, input_shape=shape, num_classes=2, generator=generator)
    task = models.graph_task(model, DOMAIN, 2)
    observation = observe(task, DRUGS.batch([ASPIRIN], DOMAIN), LocalTraining(mode="eval"), level=3)
    with torch.no_grad():
        anatomy = dissect(observation, precise_model(observation), None)
        _, features, kinds = kinds_of_nodes(anatomy, Evidence(DOMAIN, possible_atoms), 6, Budget(30.0))
        yield check_of(anatomy, 0, kinds, features), kinds


def test_centres_searched_together_give_what_each_gives_alone(found):
    check, kinds = found
    anyone = tuple(u for u in range(len(kinds)) if kinds.degrees[u] > 0)
    wanted = [(c, slots(check, c, Counter({anyone: kinds.degrees[c]}))) for c in range(len(kinds))]
    budget = Budget(60.0)
    together = check.search_all(wanted, budget)
    assert len(together) == len(wanted)
    assert sum(len(blocks) for blocks, _ in together) > 3
    for (centre, groups), (blocks, rows) in zip(wanted, together):
        alone, own = check.search(centre, groups, budget)
        assert alone == blocks
        if blocks:
            torch.testing.assert_close(rows, own)
            again = check.read([centre] * len(blocks), blocks)
            torch.testing.assert_close(check.hidden(again), rows)


def test_the_molecules_own_neighbourhoods_pass(found):
    check, kinds = found
    made = first_blocks(check, kinds, Budget(60.0))
    graph = DRUGS.graphs[ASPIRIN]
    rows = DOMAIN.to_model(DOMAIN.one_hot(graph.kinds).double())
    place = torch.cdist(rows, kinds.rows).argmin(1).tolist()
    true = {(place[i], tuple(sorted(place[j] for j in graph.edges[i].nonzero()[:, 0]))) for i in range(len(graph))}
    assert true <= set(zip(made.own, made.around))
