"""An audit of a client with a defense: who attacks it, what is kept of it, and what a reader is told."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo import defenses, federation
from invertigo.auditing import Scenario, audit, load_scenario
from invertigo.auditing.protection import read_informed
from invertigo.auditing.staging import stage
from invertigo.auditing.trial import update_residuals
from invertigo.domains import Images
from invertigo.types import (
    INVERTIGO,
    AdversaryView,
    Attack,
    Batch,
    ConfigurationError,
    Defense,
    InvalidValueError,
    LocalTraining,
    Reconstruction,
    Task,
    ThreatLevel,
    UnknownNameError,
    Update,
)

SHAPE = (1, 4, 4)


class _Shield(Defense):
    """What all defenses of this file state alike."""

    paper: ClassVar = INVERTIGO
    domains: ClassVar = frozenset({"images"})
    strength: ClassVar = "factor"
    strengths: ClassVar = (1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Hide(_Shield):
    """Hides the first layer; a release below `bare` is the raw update."""

    name: ClassVar = "hide"
    bare: int = 0
    refuse: bool = False

    def on_update(self, update, step):
        step.facts["epsilon"] = float(step.round)
        hidden = next(iter(update))
        return {k: v * (k != hidden or step.round < self.bare) for k, v in update.items()}

    def wire_bytes(self, update):
        return 7

    def adversary_view(self, observation):
        if self.refuse:
            raise InvalidValueError("The hidden layer cannot be told.")
        hidden = {k: torch.full_like(v, float(i > 0)) for i, (k, v) in enumerate(observation.update.tensors.items())}
        last = (observation.releases or (observation.update,))[-1]
        return AdversaryView(knows="the hidden layer", visible=hidden, update=last)


@dataclass(frozen=True, kw_only=True)
class Known(_Shield):
    """Scales the update, which changes no attack."""

    name: ClassVar = "known"
    factor: float = 2.0

    def on_update(self, update, step):
        return {k: v * self.factor for k, v in update.items()}

    def adversary_view(self, observation):
        return AdversaryView(knows="the factor")


@dataclass(frozen=True, kw_only=True)
class Rebuild(_Shield):
    """Every client trains another model."""

    name: ClassVar = "rebuild"

    def prepare(self, task, public, *, generator):
        return Task(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), task.loss, task.domain, task.num_classes)

    def adversary_view(self, observation):
        return AdversaryView(knows="the model")


@dataclass(frozen=True, kw_only=True)
class Peek:
    """Rebuilds the truth once it knows the defense, and notes what it was shown."""

    name: ClassVar[str] = "peek"
    paper: ClassVar = INVERTIGO
    requires: ClassVar[frozenset] = frozenset()
    domains: ClassVar[frozenset] = frozenset({"images"})
    exact: ClassVar[bool] = False

    truth: torch.Tensor
    seen: list

    def reconstruct(self, observation, *, generator, progress=None):
        self.seen.append(observation)
        guess = torch.rand(self.truth.shape, generator=generator)
        images = guess if observation.knowledge.view is None else self.truth
        fields = {"images": images, "labels": torch.zeros(len(images), dtype=torch.long)}
        return Reconstruction(fields, self.name, 1.0, "schedule", 0.0, labels_inferred=True)


assert isinstance(Peek(truth=torch.zeros(1), seen=[]), Attack)


@pytest.fixture
def client():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    return model, F.cross_entropy, (torch.rand((2, *SHAPE), generator=generator), torch.tensor([0, 2]))


def audited(client, **arguments):
    seen = []
    attack = Peek(truth=client[2][0], seen=seen)
    return audit(*client, domain=Images(SHAPE), levels=[1], attacks=[attack], **arguments), seen


def test_every_attack_is_run_without_and_with_knowledge_of_the_defense_and_the_stronger_speaks(client):
    found, seen = audited(client, defense=Hide())
    naive, informed = found.record.attacks
    assert (naive.informed, informed.informed) == (False, True)
    assert (naive.recovered, informed.recovered) == (0, 2)
    assert {naive.tensors, informed.tensors} == {"1-peek", "1-peek-informed"}
    assert torch.equal(found.reconstructions["1-peek-informed/images"], client[2][0])
    level = next(one for one in found.record.levels if one.level == 1)
    assert (level.recovered, level.strongest_informed) == (2, True)
    assert found.verdict.status == "leaks"
    assert "knows the defense" in found.verdict.detail
    assert seen[0].knowledge.view is None
    assert seen[1].knowledge.view.knows == "the hidden layer"
    assert not seen[0].update.tensors["1.weight"].any()
    assert "naive_attack_weaker" in {flag.code for flag in found.flags}


def test_without_a_defense_there_is_one_adversary(client):
    found, seen = audited(client)
    assert len(seen) == 1
    assert found.record.defense is None


def test_the_record_holds_what_the_defense_did(client):
    found, _ = audited(client, defense=Hide(bare=1), releases=3)
    defense = found.record.defense
    assert (defense.name, defense.paper, defense.settings) == ("hide", INVERTIGO.key, {"bare": 1, "refuse": False})
    assert (defense.releases, defense.undefended, defense.bytes) == (3, 1, 7)
    assert defense.facts == {"epsilon": 2.0}, "the loss of privacy adds up over the releases"
    hidden = 16 * 8 / (16 * 8 + 8 + 8 * 3 + 3)
    assert defense.visible == pytest.approx(1 - 2 / 3 * hidden)
    assert defense.knows == "the hidden layer"
    assert any("the hidden layer" in k for k in found.record.knowledge)
    assert "undefended_releases" in {flag.code for flag in found.flags}
    assert type(defense).model_validate_json(defense.model_dump_json()) == defense


def test_who_does_not_know_the_defense_uses_the_first_of_several_releases(client):
    _, (naive, informed) = audited(client, defense=Hide(bare=1), releases=3)
    assert len(naive.releases) == 3
    assert naive.update.tensors["1.weight"].any()
    assert not informed.update.tensors["1.weight"].any()


def test_knowledge_that_changes_no_attack_is_not_attacked_twice(client):
    found, seen = audited(client, defense=Known())
    assert len(seen) == 1
    assert "both" in found.record.defense.uninformed
    assert "no_informed_attack" not in {flag.code for flag in found.flags}


def test_a_view_that_cannot_be_had_is_told(client):
    found, seen = audited(client, defense=Hide(refuse=True))
    assert len(seen) == 1
    assert "no_informed_attack" in {flag.code for flag in found.flags}


def test_a_defense_that_does_nothing_is_told(client):
    found, _ = audited(client, defense=Known(factor=1.0))
    assert found.record.defense.inert
    assert "inert_defense" in {flag.code for flag in found.flags}


def test_a_defense_that_changes_the_model_is_audited_on_its_model(client):
    found, (seen,) = audited(client, defense=Rebuild())
    assert set(seen.parameters) == {"1.weight", "1.bias"}
    assert found.record.defense.replaces_task
    assert not found.record.defense.inert


def test_the_same_seed_gives_the_same_defended_update(client):
    def sent(seed):
        noisy = defenses.make("gaussian_noise")
        return audited(client, defense=noisy, seed=seed)[1][0].update.tensors["1.weight"]

    assert torch.equal(sent(1), sent(1))
    assert not torch.equal(sent(1), sent(2))


def test_an_update_that_was_handed_over_is_read_with_its_defense(client):
    model, loss, (images, labels) = client
    task, truth = Task(model, loss, Images(SHAPE), 3), Batch({"images": images, "labels": labels})
    seen = federation.observe(task, truth, LocalTraining(), level=1, defense=Hide(), releases=2)
    found = audit(seen, truth=truth, attacks=[Peek(truth=images, seen=[])], defense=Hide())
    assert [a.informed for a in found.record.attacks] == [False, True]
    assert found.record.defense.releases == 2
    assert found.record.defense.cosine is None


def test_the_papers_of_a_defense_are_cited(client):
    chosen = defenses.make("clip")
    found, _ = audited(client, defense=chosen)
    assert chosen.paper.key in found.record.citations


def test_a_residual_is_taken_as_the_adversary_reads_the_update(client):
    model, loss, (images, labels) = client
    task, truth = Task(model, loss, Images(SHAPE), 3), Batch({"images": images, "labels": labels})
    seen = federation.observe(task, truth, LocalTraining(), level=1, defense=Hide())
    assert update_residuals(seen, truth.fields)[0] > 0.1
    informed = read_informed(Hide(), {ThreatLevel.UPDATE: seen}).informed[ThreatLevel.UPDATE]
    assert update_residuals(informed, truth.fields)[0] < 1e-6

    halved = seen.informed(AdversaryView("", surrogate=lambda u: {k: v / 2 for k, v in u.items()}))
    flipped = seen.informed(AdversaryView("", transform=lambda f: {**f, "images": f["images"].flip(-1)}))
    plain = federation.observe(task, truth, LocalTraining(), level=1)
    assert update_residuals(plain.informed(halved.knowledge.view), truth.fields)[0] == pytest.approx(0.5)
    mirrored = {**truth.fields, "images": images.flip(-1)}
    assert update_residuals(plain.informed(flipped.knowledge.view), mirrored)[0] < 1e-6


@pytest.mark.parametrize(
    ("written", "error", "words"),
    [
        ("topk", UnknownNameError, "Did you mean 'top_k'"),
        ({"name": "top_k", "fraction": 0.1}, ConfigurationError, "no hyper-parameter 'fraction'"),
        ({"name": "top_k", "k": 3.0}, InvalidValueError, "in \\(0, 1\\]"),
    ],
)
def test_a_defense_that_cannot_be_had_is_refused_before_any_data_is_read(written, error, words):
    scenario = Scenario.model_validate({"defense": written, "data": {"name": "no such set"}})
    with pytest.raises(error, match=words):
        stage(scenario)


def test_a_defense_for_other_data_is_refused(client):
    @dataclass(frozen=True, kw_only=True)
    class ForText(Known):
        name: ClassVar = "for_text"
        domains: ClassVar = frozenset({"text"})

    with pytest.raises(ConfigurationError, match="protects text, not images"):
        audited(client, defense=ForText())


def test_releases_of_an_update_that_was_handed_over_cannot_be_repeated(client):
    model, loss, (images, labels) = client
    seen = federation.observe(
        Task(model, loss, Images(SHAPE), 3), Batch({"images": images, "labels": labels}), LocalTraining(), level=1
    )
    with pytest.raises(InvalidValueError, match="one update was handed over"):
        audit(seen, releases=2)


def test_settings_are_laid_over_a_bare_name_and_do_not_carry_over_to_another_defense():
    bare = load_scenario("demo", ["defense=top_k", "defense.k=0.2"])
    assert bare.defended.settings == {"k": 0.2}
    changed = bare.model_copy(
        update={"compare": [{"defense": {"name": "clip"}}, {"defense.k": 0.5}, {"defense": None}]}
    )
    assert [one.defended and (one.defended.name, one.defended.settings) for one in changed.companions()] == [
        ("clip", {}),
        ("top_k", {"k": 0.5}),
        None,
    ]


def test_updates_keep_their_kind_through_a_defense(client):
    found, (naive, _) = audited(
        client, defense=Hide(), local=LocalTraining(sends="difference", learning_rate=0.1, epochs=2)
    )
    assert isinstance(naive.update, Update)
    assert naive.update.kind == "difference"
    assert found.record.scenario["defense"]["name"] == "hide"
