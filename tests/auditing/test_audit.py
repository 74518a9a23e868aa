import platform
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo import federation
from invertigo.auditing import Audit, Scenario, audit
from invertigo.auditing.budget import Budget
from invertigo.auditing.judge import Judge
from invertigo.auditing.portfolio import Entry
from invertigo.auditing.record import AuditRecord
from invertigo.auditing.session import Session
from invertigo.domains import Images
from invertigo.types import (
    INVERTIGO,
    Batch,
    ConfigurationError,
    InvalidValueError,
    Knowledge,
    LocalTraining,
    Observation,
    Reconstruction,
    Requirement,
    RequirementError,
    Task,
    ThreatLevel,
    Tick,
)

SHAPE = (1, 8, 8)


@dataclass(frozen=True, kw_only=True)
class Fake:
    """Returns what it was told to, so that every path of an audit can be walked without an optimiser."""

    name: ClassVar[str] = "fake"
    paper: ClassVar = INVERTIGO
    requires: ClassVar[frozenset] = frozenset()
    domains: ClassVar[frozenset] = frozenset({"images"})
    exact: ClassVar[bool] = False

    answer: torch.Tensor | None = None
    from_level: int = 0
    stopped: str = "schedule"
    error: BaseException | None = None
    iterations: int = 10
    pause: float = 0.0
    seen: list | None = None

    def reconstruct(self, observation, *, generator, progress=None):
        if self.seen is not None:
            self.seen.append((observation, generator.initial_seed()))
        if self.error is not None:
            raise self.error
        n = observation.num_examples or 2
        draw = torch.rand((n, *SHAPE), generator=generator)
        knows = self.answer is not None and observation.knowledge.level >= self.from_level
        for done in range(self.iterations):
            if self.pause:
                time.sleep(self.pause)
            if progress is not None and progress(Tick(done, self.iterations, 1.0, 0.0, 0.0)):
                return self._result(draw, "budget")
        return self._result(self.answer if knows else draw, self.stopped)

    def _result(self, images, stopped):
        labels = torch.zeros(len(images), dtype=torch.long)
        inferred = Requirement.LABELS not in self.requires
        fields = {"images": images, "labels": labels}
        return Reconstruction(fields, self.name, 1.0, stopped, 0.0, labels_inferred=inferred)


@dataclass(frozen=True, kw_only=True)
class ExactFake(Fake):
    name: ClassVar[str] = "exact_fake"
    exact: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Other(Fake):
    name: ClassVar[str] = "other"
    prior_only: bool = False


@dataclass(frozen=True, kw_only=True)
class NeedsLabels(Fake):
    name: ClassVar[str] = "needs_labels"
    requires: ClassVar[frozenset] = frozenset({Requirement.LABELS})


def network(norm=False):
    generator = torch.Generator().manual_seed(0)
    middle = [nn.BatchNorm1d(16)] if norm else []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *middle, nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1 + (p.ndim == 1))
    return model


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand((2, *SHAPE), generator=generator), torch.tensor([0, 2])


@pytest.fixture
def public():
    return Batch({"images": torch.rand((130, *SHAPE), generator=torch.Generator().manual_seed(2))})


def run(batch, public, *attacks, norm=False, **options):
    options = {"budget": "20s", "public": public, "domain": Images(SHAPE)} | options
    return audit(network(norm), F.cross_entropy, batch, attacks=list(attacks), **options)


def by_name(found, name):
    return [a for a in found.record.attacks if a.attack == name]


def codes(found):
    return {flag.code for flag in found.flags}


def test_an_attack_that_rebuilds_the_batch_is_a_leak_on_its_rung(batch, public):
    found = run(batch, public, Fake(answer=batch[0].flip(0), from_level=2))
    assert isinstance(found, Audit)
    assert (found.verdict.status, found.verdict.level) == ("leaks", 2)
    first, second = by_name(found, "fake")
    assert (first.level, first.recovered) == (1, 0)
    assert (second.level, second.outcomes) == (2, ["exact", "exact"])
    assert second.matching == [1, 0]  # scored after matching, and stored in the order of the truth
    assert second.ranks == [1, 1]
    assert second.decoys == 100
    assert torch.equal(found.reconstructions[f"{second.tensors}/images"], batch[0].flip(0))
    assert torch.equal(found.originals["images"], batch[0])


def test_labels_count_only_when_they_were_inferred(batch, public):
    found = run(batch, public, Fake(), NeedsLabels(), levels=[2])
    inferred, given = by_name(found, "fake")[0], by_name(found, "needs_labels")[0]
    assert inferred.label_accuracy == 0.5  # it says 0 and 0, the truth is 0 and 2
    assert (given.labels, given.label_accuracy) == ("given", None)


def test_nothing_rebuilt_by_attacks_that_somebody_chose_says_nothing_of_others(batch, public):
    found = run(batch, public, Fake())
    assert found.verdict.status == "inconclusive"
    assert found.verdict.headline == "Not rebuilt by fake on rungs 1 and 2, which says nothing of other attacks."
    assert found.record.portfolio == "chosen"
    assert {"few_examples", "below_baseline"} <= codes(found)
    assert "borrowed_decoys" not in codes(found)


def test_rung_three_is_the_same_as_two_without_batchnorm_and_a_what_if_with_it(batch, public):
    plain = run(batch, public, Fake()).record
    assert plain.levels[3].reason.startswith("same as rung 2")
    assert [a.level for a in plain.attacks] == [1, 2]
    normed = run(batch, public, Fake(), norm=True)
    assert "what-if" in normed.record.levels[3].reason
    assert [a.level for a in normed.record.attacks] == [1, 2, 3]
    assert "statistics_assumed" in codes(normed)


def test_each_rung_hands_over_its_own_knowledge_and_no_more(batch, public):
    seen = []
    run(batch, public, Fake(seen=seen), norm=True)
    one, two, three, *_ = (observation for observation, _ in seen)  # what follows is the positive control
    assert one.knowledge.labels is None
    assert one.knowledge.batch_statistics is None
    assert two.knowledge.labels.tolist() == [0, 2]
    assert two.knowledge.batch_statistics
    assert (one.local.mode, two.local.mode, three.local.mode) == ("train", "train", "eval")
    assert len({seed for _, seed in seen[:3]}) == 3


def test_a_client_in_inference_mode_is_examined_where_it_stands(batch, public):
    found = run(batch, public, Fake(), norm=True, local=LocalTraining(mode="eval"))
    assert [a.level for a in found.record.attacks] == [3]
    assert "already gives what rung 3 needs" in found.record.levels[1].reason


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("broke"), "failed"), (InvalidValueError("bad"), "failed"), (RequirementError("needs x"), "refused")],
)
def test_an_attack_that_fails_or_refuses_leaves_the_others_alone(batch, public, error, status):
    found = run(batch, public, Fake(error=error), Other(answer=batch[0]), levels=[1])
    (broken,) = by_name(found, "fake")
    assert broken.status == status
    assert str(error) in broken.reason
    assert found.verdict.status == "leaks"
    assert ("attack_failed" in codes(found)) == (status == "failed")


def test_a_crash_forbids_resists(batch, public):
    crashed = run(batch, public, Fake(error=RuntimeError("x")), Other(), levels=[1])
    assert "fake failed." in crashed.verdict.missing
    refused = run(batch, public, Fake(error=RequirementError("x")), Other(), levels=[1])
    assert "fake failed." not in refused.verdict.missing


def test_an_interruption_keeps_what_is_there_and_never_resists(batch, public):
    found = run(batch, public, Other(), Fake(error=KeyboardInterrupt()), levels=[1, 2])
    assert [a.status for a in found.record.attacks] == ["ran", "skipped", "skipped", "skipped"]
    assert found.verdict.status == "inconclusive"
    assert "interrupted" in codes(found)
    leaked = run(batch, public, ExactFake(answer=batch[0], from_level=9), Fake(error=KeyboardInterrupt()))
    assert leaked.verdict.status == "inconclusive"


def test_exact_attacks_go_first_and_spare_the_rest(batch, public):
    found = run(batch, public, Fake(), ExactFake(answer=batch[0]))
    first, *rest = found.record.attacks
    assert (first.attack, first.level, first.recovered) == ("exact_fake", 1, 2)
    assert {a.status for a in rest} == {"skipped"}
    assert all("already rebuilt everything exactly on rung 1" in a.reason for a in rest)
    assert [level.recovered for level in found.record.levels] == [0, 2, 2, 2, 2, 2]


def test_requirements_are_met_on_the_rungs_that_meet_them(batch, public):
    found = run(batch, public, NeedsLabels())
    assert [(a.level, a.status) for a in found.record.attacks] == [(1, "refused"), (2, "ran")]


def test_the_budget_is_honoured_and_a_cut_attack_is_inconclusive(batch, public):
    found = run(batch, public, Fake(pause=0.02, iterations=10**6), budget="6s", levels=[1, 2])
    assert found.record.seconds < 12  # a tenth and two seconds, and a busy machine
    assert {a.stopped for a in found.record.ran} == {"budget"}
    assert found.verdict.status == "inconclusive"
    assert "did_not_converge" in codes(found)


def test_time_is_split_evenly_among_what_is_left(batch):
    observations = {ThreatLevel(level): observation_of(batch, level) for level in (1, 2)}
    judge = Judge(Images(SHAPE), None, None, 100)  # without truth nothing is scored, so only the attacks take time
    session = Session(observations, [Entry(Fake(pause=0.01, iterations=10**6))], judge, Budget(2.0), 0)
    session.run()
    first, second = session.records
    assert 0.8 < first.seconds < 1.3
    assert 0.6 < second.seconds < 1.3


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones(batch, public):
    def scores(**options):
        found = run(batch, public, Fake(), Other(), levels=[1], **options)
        return [a.scores for a in found.record.attacks]

    assert scores(seed=3) == scores(seed=3)
    assert scores(seed=3) != scores(seed=4)


def test_leaving_one_attack_out_does_not_change_another(batch, public):
    both, alone = (run(batch, public, *a, levels=[1]) for a in ([Other(), Fake()], [Fake()]))
    assert by_name(both, "fake")[0].scores == by_name(alone, "fake")[0].scores


def test_the_model_and_the_global_generator_are_left_as_they_were(batch, public):
    model = network(norm=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(11)
    state = torch.get_rng_state()
    audit(model, F.cross_entropy, batch, attacks=[Fake()], public=public, domain=Images(SHAPE), budget=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_prior_alone_is_a_baseline(batch, public):
    labels = {b.name: b.label for b in run(batch, public, Other(), Fake(), levels=[1]).record.baselines}
    assert labels["prior_only_other"] == "prior only (other)"
    assert "prior_only_fake" not in labels  # it has no priors to run alone
    assert {"mid_grey", "public_mean"} <= set(labels)
    spared = run(batch, public, ExactFake(answer=batch[0]), Other(), levels=[1]).record.baselines
    assert not [b.name for b in spared if b.name.startswith("prior_only")]  # `other` had nothing left to do


def test_an_inferred_range_and_missing_decoys_are_flagged(batch):
    images, labels = batch
    model = network()
    odd = audit(model, F.cross_entropy, (images * 300 - 140, labels), attacks=[Fake()], budget=5)
    assert "range_inferred" in codes(odd)
    wide = torch.rand((2, 5, 4, 4)), labels  # five channels: nothing bundled looks like it
    other = nn.Sequential(nn.Flatten(), nn.Linear(80, 3))
    found = audit(other, F.cross_entropy, wide, attacks=[ExactFake(error=RequirementError("no"))], budget=5)
    assert "no_decoys" in codes(found)


def test_labels_outside_the_classes_are_refused(batch):
    with pytest.raises(InvalidValueError, match="Label 7"):
        audit(network(), F.cross_entropy, (batch[0], torch.tensor([0, 7])), attacks=[Fake()])


@pytest.mark.parametrize("arguments", [(network(),), (network(), F.cross_entropy)])
def test_what_cannot_be_audited_is_said(arguments):
    with pytest.raises(ConfigurationError):
        audit(*arguments)


def observation_of(batch, level=1):
    task = Task(network(), F.cross_entropy, Images(SHAPE), 3)
    truth = Batch({"images": batch[0], "labels": batch[1]})
    return federation.observe(task, truth, LocalTraining(), level=level)


def test_an_observation_alone_is_inconclusive_and_scored_when_the_truth_is_given(batch, public):
    alone = audit(observation_of(batch), attacks=[Fake(answer=batch[0])], budget=5)
    assert alone.verdict.status == "inconclusive"
    assert alone.record.attacks[0].status == "ran"
    assert alone.record.attacks[0].scores == {}
    assert alone.originals is None
    scored = audit(observation_of(batch), truth=batch, attacks=[Fake(answer=batch[0])], public=public, budget=5)
    assert (scored.verdict.status, scored.verdict.level) == ("leaks", 1)
    assert [level.examined for level in scored.record.levels] == [False, True, False, False, False, False]


def test_an_exact_solution_that_reproduces_the_update_needs_no_truth(batch):
    @dataclass(frozen=True, kw_only=True)
    class Solves(ExactFake):
        name: ClassVar[str] = "solves"

        def reconstruct(self, observation, *, generator, progress=None):
            fields = {"images": self.answer, "labels": batch[1]}
            return Reconstruction(fields, self.name, 0.0, "exact", 0.0)

    right = audit(observation_of(batch), attacks=[Solves(answer=batch[0])], budget=5)
    assert right.verdict.status == "leaks"
    assert right.record.attacks[0].residual < 1e-5
    wrong = audit(observation_of(batch), attacks=[Solves(answer=batch[0].flip(0))], budget=5)
    assert wrong.verdict.status == "inconclusive"
    assert wrong.record.attacks[0].residual > 1e-2


def test_what_the_adversary_knows_decides_the_rung_of_an_observation(batch):
    given = observation_of(batch)
    informed = replace(given, knowledge=Knowledge(num_examples=2, labels=batch[1]))
    found = audit(informed, attacks=[Fake()], budget=5)
    assert [level.level for level in found.record.levels if level.examined] == [2]


def test_two_state_dicts_are_enough(batch):
    model = network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()
    seen = Observation.from_parameters(
        model, F.cross_entropy, before, model.state_dict(), domain=Images(SHAPE), learning_rate=0.1, num_examples=2
    )
    assert audit(seen, attacks=[Fake()], budget=5).record.num_examples == 2


def test_a_watched_step_is_audited_with_the_gradient_that_happened(batch, public):
    model, seen = network(norm=True), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with federation.watch(model, optimizer, F.cross_entropy, domain=Images(SHAPE)) as tape:
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)  # a repetition of the step would not know of this
        optimizer.step()
    found = audit(tape, attacks=[Fake(seen=seen)], public=public, budget=5)
    assert [a.level for a in found.record.attacks] == [1, 2, 3]
    first, second, third = (observation.update for observation, _ in seen[:3])
    assert first.norm == pytest.approx(1e-3, rel=1e-3)
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    assert not torch.equal(first.tensors["1.weight"], third.tensors["1.weight"])  # the what-if is recomputed
    assert {c.name: c.status for c in found.record.controls}["replay"] == "passed"


def test_progress_names_the_attack_and_the_rung_and_can_stop_it(batch, public):
    stages = []
    found = run(batch, public, Fake(), levels=[1, 2], progress=lambda stage: stages.append(stage) or True)
    runs = [s for s in stages if s.number]  # beside them: scoring, controls
    assert {(s.attack, s.level, s.number, s.count) for s in runs} == {("fake", 1, 1, 2), ("fake", 2, 2, 2)}
    assert {a.stopped for a in found.record.ran} == {"budget"}


def test_the_text_is_short_and_tells_the_verdict(batch, public):
    attacks = [Fake(answer=batch[0]), Other(), NeedsLabels(), ExactFake()]
    found = run(batch, public, *attacks, levels=[1])
    text = str(found)
    assert len(text.splitlines()) <= 24
    assert "LEAKS" in text
    assert "fake" in text
    assert "<pre>" in found._repr_html_()


def test_rows_and_citations_cover_what_ran(batch, public):
    found = run(batch, public, Fake(answer=batch[0]), levels=[1])
    (row,) = found.rows
    assert (row["attack"], row["recovered"]) == ("fake", 2)
    assert row["psnr.worst"] >= row["psnr.median"] > 100
    assert "invertigo" in found.citations()


def test_limits_for_a_test_suite(batch, public):
    leaks = run(batch, public, Fake(answer=batch[0], from_level=2))
    with pytest.raises(AssertionError, match="rebuilt"):
        leaks.assert_below(psnr=20)
    with pytest.raises(AssertionError, match="PSNR"):
        leaks.assert_below(psnr=20, recovered=2)
    with pytest.raises(AssertionError, match="chosen by hand"):
        leaks.assert_below(level=1, psnr=40)
    leaks.assert_below(level=1, psnr=40, require_controls=False)
    with pytest.raises(AssertionError, match="MSE"):
        leaks.assert_below(level=1, mse=10)
    with pytest.raises(ConfigurationError, match="Did you mean 'psnr'"):
        leaks.assert_below(level=1, psnrr=40)
    with pytest.raises(AssertionError, match="Not rebuilt by fake"):
        run(batch, public, Fake(stopped="budget"), levels=[1]).assert_below(psnr=99)


def test_the_command_repeats_the_audit(batch, public):
    found = run(batch, public, Fake(), levels=[1], seed=5)
    assert found.record.command.startswith("invertigo.audit(model, loss_fn, batch, levels=[1]")
    assert "seed=5" in found.record.command


def test_the_environment_names_neither_host_nor_path(batch, public):
    environment = run(batch, public, Fake(), levels=[1]).record.environment
    assert {"torch", "python", "threads", "precision"} <= set(environment)
    assert not any("/home" in v or (platform.node() and platform.node() in v) for v in environment.values())


def test_a_scenario_is_staged_attacked_and_shown_beside_its_companion():
    scenario = Scenario.model_validate(
        {
            "title": "digits",
            "data": {"name": "digits", "count": 3, "public_count": 110, "limit": 200},
            "model": {"name": "mlp"},
            "budget": "5s",
            "compare": [{"title": "more", "data.count": 5}],
        }
    )
    found = audit(scenario, attacks=[Fake()], levels=[1])
    assert found.record.title == "digits"
    assert found.record.num_examples == 3
    assert found.record.private is False  # bundled data
    assert found.record.scenario["data"]["count"] == 3
    (beside,) = found.companions
    assert (beside.record.title, beside.record.num_examples) == ("more", 5)
    again = audit(scenario, attacks=[Fake()], levels=[1])
    assert again.record.attacks[0].scores == found.record.attacks[0].scores


def test_several_clients_open_the_lowest_rung():
    scenario = Scenario.model_validate(
        {"data": {"name": "digits", "count": 2, "limit": 300}, "model": {"name": "mlp"}, "adversary": {"clients": 3}}
    )
    seen = []
    found = audit(scenario, attacks=[Fake(seen=seen)], budget=5)
    assert [a.level for a in found.record.attacks][:2] == [0, 1]
    assert seen[0][0].num_examples == 6
    assert found.record.num_examples == 2


def test_an_audit_is_saved_as_page_record_or_folder(batch, public, tmp_path):
    found = run(batch, public, Fake(answer=batch[0]), levels=[1])
    assert "<html" in found.save(tmp_path / "a.html").read_text(encoding="utf-8")
    AuditRecord.model_validate_json(found.save(tmp_path / "a.json").read_text(encoding="utf-8"))
    found.save(tmp_path / "folder")
    assert {"result.json", "report.html", "reconstruction.safetensors"} <= {
        p.name for p in (tmp_path / "folder").iterdir()
    }
    with pytest.raises(ConfigurationError, match=r"\.pdf"):
        found.save(tmp_path / "a.pdf")


def test_the_audit_itself_finds_that_a_first_linear_layer_leaks():
    found = audit("faces-mlp", budget="20s", levels=[1])
    assert found.verdict.headline == "An honest-but-curious server that sees one update rebuilt 4 of 4 images exactly."
    assert found.worst.attack == "linear_layer"
    assert "first layer is fully connected" in found.verdict.remedy
    assert "phong2017privacy" in found.citations()


def test_a_search_that_the_user_cut_short_is_flagged():
    scenario = Scenario.model_validate(
        {"data": {"name": "faces", "indices": [0]}, "model": {"name": "lenet"}, "adversary": {"levels": [1]}}
    )
    short = audit(scenario, attacks=[{"name": "inverting_gradients", "iterations": 3}])
    assert "short_schedule" in {flag.code for flag in short.flags}
    usual = audit(scenario, attacks=[{"name": "gauss_newton", "iterations": 60}])
    assert "short_schedule" not in {flag.code for flag in usual.flags}
