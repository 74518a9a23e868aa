"""Defenses that say they work on any update do so on graphs; the others are refused before a client is trained."""

import pytest
import torch

from invertigo import data, defenses, models
from invertigo.auditing.protection import check_protects, make_defense
from invertigo.auditing.scenario import Scenario
from invertigo.auditing.staging import stage
from invertigo.federation import observe_round
from invertigo.types import ConfigurationError, LocalTraining, protects

SETTINGS = {"clip": {"norm": 1e-3}, "per_example_clip": {"norm": 1e-3}}
"""So that they act on this client; without an entry, the defaults."""
GENERAL = [name for name in defenses.registry if protects(defenses.registry[name], "graphs")]


@pytest.fixture(scope="module")
def graphs():
    """A task that reads molecules, and two of them."""
    drugs = data.load("drugs")
    domain = drugs.domain()
    generator = torch.Generator().manual_seed(0)
    shape = (domain.nodes, domain.width)
    model = models.build("gcn", input_shape=shape, num_classes=2, generator=generator, hidden=16)
    return models.graph_task(model, domain, 2), drugs.batch([0, 1], domain)


def test_what_changes_images_is_not_said_to_change_graphs():
    images_only = set(defenses.registry) - set(GENERAL)
    assert images_only >= {"ats", "instahide", "mixup", "soteria", "precode", "learnable_perturbation"}
    assert {"clip", "gaussian_noise", "percentile_pruning", "quantise", "dp_sgd", "censor"} <= set(GENERAL)
    assert all(protects(defenses.registry[name], "images") for name in defenses.registry)


@pytest.mark.parametrize("name", GENERAL)
def test_defenses_of_any_domain_change_the_update_of_a_graph_network(graphs, name):
    task, batch = graphs
    if name in ("user_dp", "dp_sgd"):
        pytest.importorskip("opacus", reason="pip install 'invertigo[dp]'")
    defense = defenses.make(name, **SETTINGS.get(name, {}))
    ready = defense.prepare(task, None, generator=torch.Generator().manual_seed(1))
    secret = torch.Generator().manual_seed(0)
    round_ = observe_round(ready, batch, LocalTraining(mode="eval"), level=3, defense=defense, secret=secret)
    assert round_.traces[0].changed > 0.05
    assert all(t.isfinite().all() for t in round_.observation.update.tensors.values())
    view = defense.adversary_view(round_.observation)
    assert round_.observation.informed(view).knowledge.view is view


def test_a_defense_of_images_is_refused_for_graphs():
    with pytest.raises(ConfigurationError, match="soteria' protects images, not graphs"):
        check_protects(make_defense("soteria"), "graphs")
    graphs = {"data": {"name": "drugs"}, "model": {"name": "gcn"}, "local": {"mode": "eval"}}
    with pytest.raises(ConfigurationError, match="not graphs"):
        stage(Scenario.model_validate({**graphs, "defense": "soteria"}))
    assert stage(Scenario.model_validate({**graphs, "defense": "gaussian_noise"})).defense.name == "gaussian_noise"
