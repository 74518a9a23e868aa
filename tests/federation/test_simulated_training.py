"""What a defense costs: partitions of the examples, and training on the updates as they are released."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from invertigo import data, models
from invertigo.defenses import Precode
from invertigo.domains import Images
from invertigo.federation import partition, simulate_training
from invertigo.federation.training import accuracy
from invertigo.types import (
    INVERTIGO,
    AdversaryView,
    Batch,
    ConfigurationError,
    Defense,
    InvalidValueError,
    LocalTraining,
    Task,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 12), st.integers(12, 60), st.sampled_from([None, 0.05, 1.0, 100.0]), st.integers(0, 5))
def test_every_example_is_held_once_and_every_client_holds_one(clients, count, dirichlet, seed):
    labels = torch.randint(0, 4, (count,), generator=seeded(seed))
    held = partition(labels, clients, dirichlet=dirichlet, generator=seeded(seed))
    assert len(held) == clients
    assert min(map(len, held)) >= 1
    assert torch.cat(held).sort().values.tolist() == list(range(count))


def skew(dirichlet):
    labels = torch.arange(1000) % 10
    held = partition(labels, 5, dirichlet=dirichlet, generator=seeded())
    return sum((labels[own].bincount(minlength=10) / len(own)).max().item() for own in held) / 5


def test_a_smaller_concentration_leaves_each_client_fewer_classes():
    assert skew(0.05) > 0.5 > skew(1.0) > skew(100.0) > 0.1 * 0.99


@pytest.mark.parametrize(("clients", "dirichlet"), [(11, None), (0, None), (2, 0.0), (2, -1.0), (2, float("nan"))])
def test_impossible_partitions_are_refused(clients, dirichlet):
    with pytest.raises(InvalidValueError):
        partition(torch.zeros(10, dtype=torch.long), clients, dirichlet=dirichlet, generator=seeded())


class _Shield(Defense):
    paper: ClassVar = INVERTIGO
    domains: ClassVar = frozenset({"images"})
    strength: ClassVar = "factor"
    strengths: ClassVar = (1.0,)

    def adversary_view(self, observation):
        return AdversaryView("nothing")


@dataclass(frozen=True, kw_only=True)
class Scale(_Shield):
    name: ClassVar = "scale"
    factor: float = 0.0
    every: int = 1

    def on_update(self, update, step):
        step.facts["round"] = float(step.round)
        return {k: v * (self.factor if step.round % self.every == 0 else 1.0) for k, v in update.items()}

    def wire_bytes(self, update):
        return 3


def easy(count):
    """Bright squares on the left or on the right."""
    labels = torch.arange(count) % 2
    images = 0.1 * torch.rand((count, 1, 4, 4), generator=seeded(count))
    images[labels == 0, :, :, :2] += 0.9
    images[labels == 1, :, :, 2:] += 0.9
    return Batch({"images": images, "labels": labels})


def task(norm=False):
    layers = [nn.Flatten(), nn.Linear(16, 6), *([nn.BatchNorm1d(6)] if norm else []), nn.Tanh(), nn.Linear(6, 2)]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    model = nn.Sequential(*layers)
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([5.0, -5.0]))  # all of one class, until it learns
    return Task(model, F.cross_entropy, Images((1, 4, 4)), 2)


GRADIENT = LocalTraining(learning_rate=0.5)
STEPS = LocalTraining(sends="difference", learning_rate=0.5, epochs=2, batch_size=4)


def trained(local=GRADIENT, subject=None, **arguments):
    arguments = {"rounds": 40, "clients": 3, "batch_size": 8, "generator": seeded(), **arguments}
    return simulate_training(subject or task(), easy(60), easy(30), local, **arguments)


@pytest.mark.parametrize("local", [GRADIENT, STEPS])
@pytest.mark.parametrize("norm", [False, True])
def test_an_easy_task_is_learned(local, norm):
    subject = task(norm)
    before = {k: v.clone() for k, v in subject.model.state_dict().items()}
    run = trained(local, subject)
    assert run.accuracy == 1.0
    assert run.releases == 120
    assert run.undefended_share == 1.0
    assert all(torch.equal(v, before[k]) for k, v in subject.model.state_dict().items()), "the audited model is left"


@pytest.mark.parametrize("local", [GRADIENT, STEPS])
def test_no_step_uses_an_update_that_was_not_released(local):
    subject = task()
    run = trained(local, subject, defense=Scale())
    for name, tensor in subject.model.named_parameters():
        assert torch.equal(dict(run.model.named_parameters())[name], tensor)
    assert run.accuracy == 0.5
    assert run.undefended_share == 0.0


def test_one_client_with_all_examples_is_gradient_descent():
    subject, data = task(), easy(12)
    run = simulate_training(subject, data, easy(4), GRADIENT, rounds=3, batch_size=12, generator=seeded())
    model = task().model
    for _ in range(3):
        model.zero_grad()
        F.cross_entropy(model(data["images"]), data["labels"]).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad
    for p, q in zip(run.model.parameters(), model.parameters()):
        torch.testing.assert_close(p, q)


def test_undefended_releases_are_counted_and_rounds_are_numbered():
    run = trained(defense=Scale(every=4), rounds=8)
    assert run.undefended_share == 0.75
    assert {trace.facts["round"] for trace in run.traces} == set(map(float, range(8)))
    assert {trace.bytes for trace in run.traces} == {3}
    assert len(run.traces) == run.releases == 24


def test_the_curve_ends_with_the_last_round():
    assert [n for n, _ in trained(rounds=20, evaluations=4).curve] == [5, 10, 15, 20]
    assert [n for n, _ in trained(rounds=3, evaluations=10).curve] == [1, 2, 3]
    assert [n for n, _ in trained(rounds=7, evaluations=2).curve][-1] == 7


def test_the_same_generator_gives_the_same_training():
    first, second, other = (trained(dirichlet=0.3, generator=seeded(s), rounds=4) for s in (1, 1, 2))
    for p, q in zip(first.model.parameters(), second.model.parameters()):
        assert torch.equal(p, q)
    assert not all(torch.equal(p, q) for p, q in zip(first.model.parameters(), other.model.parameters()))


def test_divergence_ends_the_training_and_is_told():
    run = trained(defense=Scale(factor=1e38), rounds=10)
    assert run.diverged
    assert run.curve[-1][0] == 10
    assert 0 <= run.accuracy <= 1


def test_a_mistake_of_the_setting_is_no_divergence():
    with pytest.raises(InvalidValueError, match="at least 1"):
        trained(rounds=0)


def test_graphs_are_learnt_and_their_accuracy_is_counted_graph_by_graph():
    circles = data.load("karate")
    domain = circles.domain(standardise=True)
    batch = circles.batch(range(24), domain)
    model = models.build("gcn", input_shape=circles.shape, num_classes=circles.num_classes, generator=seeded())
    task = models.graph_task(model, domain, circles.num_classes)
    run = simulate_training(task, batch, batch, LocalTraining(learning_rate=1.0), rounds=60, generator=seeded())
    with torch.no_grad():
        guesses = [run.model(*(batch[name][i : i + 1] for name in READ)).argmax().item() for i in range(len(batch))]
    assert run.accuracy == sum(g == y for g, y in zip(guesses, batch["labels"].tolist())) / len(batch)
    commonest = batch["labels"].bincount().max().item() / len(batch)
    assert run.accuracy > commonest


READ = ("features", "adjacency", "present")


def test_labels_of_nodes_are_refused():
    club = data.load("karate", split="whole")
    domain = club.domain()
    batch = club.batch([0], domain)
    model = models.build("gcn", input_shape=club.shape, num_classes=club.num_classes, generator=seeded())
    task = models.graph_task(model, domain, club.num_classes)
    with pytest.raises(ConfigurationError, match="one class an example"):
        simulate_training(task, batch, batch, LocalTraining(), rounds=1, generator=seeded())


def test_precode_is_judged_by_its_classes_alone():
    defense = Precode(size=8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    task = Task(model, F.cross_entropy, Images(shape=(1, 4, 4)), 2)
    task = defense.prepare(task, None, generator=seeded())
    test = Batch({"images": torch.rand(40, 1, 4, 4, generator=seeded(1)), "labels": torch.arange(40) % 2})
    task.model.eval()
    with torch.no_grad():
        expected = (task.model(test["images"]).argmax(-1) == test["labels"]).double().mean().item()
    assert accuracy(task, test) == expected


@dataclass(frozen=True, kw_only=True)
class Refusing(_Shield):
    name: ClassVar = "refusing"
    factor: float = 0.0

    def on_aggregate(self, mean, local, examples):
        assert examples == [8, 8, 8]
        return {name: self.factor * tensor for name, tensor in mean.items()}


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_the_server_applies_what_the_defense_makes_of_the_mean(factor):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    task = Task(model, F.cross_entropy, Images(shape=(1, 4, 4)), 2)
    batch = Batch({"images": torch.rand(30, 1, 4, 4, generator=seeded()), "labels": torch.arange(30) % 2})
    run = simulate_training(
        task, batch, batch, LocalTraining(learning_rate=0.1), rounds=1, clients=3, batch_size=8,
        defense=Refusing(factor=factor), generator=seeded(),
    )  # fmt: skip
    same = [torch.equal(a, b) for a, b in zip(run.model.parameters(), model.parameters())]
    assert all(same) if factor == 0 else not any(same)
