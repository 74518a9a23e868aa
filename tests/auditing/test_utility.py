"""What a defense costs, measured in an audit: once for all clients that share a training, and for graphs too."""

from __future__ import annotations

from dataclasses import replace

import pytest

import invertigo
from invertigo.auditing import load_scenario, utility
from invertigo.auditing.staging import stage
from invertigo.auditing.utility import measure_utility
from invertigo.defenses import TopK
from invertigo.models import memory

SHORT = ["utility.rounds=2", "utility.clients=2", "utility.batch_size=4", "utility.examples=40", "utility.test=20"]


@pytest.fixture
def trial():
    memory.forget()
    found = stage(load_scenario("demo", [*SHORT, "compare=[]"])).trial
    assert found is not None
    return found


@pytest.fixture
def trainings(monkeypatch):
    done, train = [], utility.simulate_training
    monkeypatch.setattr(utility, "simulate_training", lambda *a, **k: done.append(k["defense"]) or train(*a, **k))
    return done


def test_the_same_training_is_made_once(trial, trainings):
    first = measure_utility(trial, TopK(), 0)
    assert measure_utility(trial, TopK(), 0) == first
    assert trainings == [TopK(), None]


@pytest.mark.parametrize("other", ["defense", "seed", "rounds", "data"])
def test_another_training_is_made(trial, trainings, other):
    trial = replace(trial, undefended=False)
    measure_utility(trial, TopK(), 0)
    changed = {
        "rounds": {"rounds": 3},
        "data": {"data": trial.data.select(slice(0, len(trial.data) - 1))},
    }  # fmt: skip
    measure_utility(
        replace(trial, **changed.get(other, {})), TopK(k=0.2) if other == "defense" else TopK(), int(other == "seed")
    )  # fmt: skip
    assert len(trainings) == 2


def test_a_defense_of_graphs_is_measured_too():
    settings = ["data.name=karate", "data.count=1", "data.indices=null", "model.name=gcn", "normalise=true"]
    attack = ["attacks=[{name: graph_dlg, iterations: 2}]", "adversary.levels=[2]", "decoys=20", "compare=[]"]
    found = invertigo.audit(load_scenario("molecules", [*settings, *attack, *SHORT, "defense=top_k"])).record.utility
    assert found is not None
    assert found.undefended_share == 0
    assert 0 < found.accuracy <= 1
    assert found.undefended_accuracy is not None
    assert found.bytes < found.raw_bytes
