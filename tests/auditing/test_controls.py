"""Every way to *resists* and how each of them is withdrawn, on a step whose answers are known from algebra.

The client is a linear classifier on eight pictures. Its update is `D^T X` and the column sums of `D` (8, class), where
`D` follows from the logits. Of one picture, weights over bias are the picture. Of eight, `X + A B` gives the same
update for every `A` with `D^T A = 0` and every `B` with `B W^T = 0`, so the update does not tell them apart.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo import federation
from invertigo.attacks import GaussNewton, InvertingGradients
from invertigo.auditing import audit, portfolio
from invertigo.auditing.controls.fit import Yardstick, fit_control
from invertigo.auditing.controls.schedule import budget_needed, curtailed, schedule_control, seconds_needed
from invertigo.auditing.portfolio import Entry
from invertigo.auditing.record import AttackRecord
from invertigo.domains import Images
from invertigo.report import check
from invertigo.types import (
    INVERTIGO,
    Batch,
    Knowledge,
    LocalTraining,
    Observation,
    Reconstruction,
    RequirementError,
    Tick,
)

SHAPE, CLASSES, COUNT = (1, 8, 8), 3, 8


def classifier():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(CLASSES, 64, generator=torch.Generator().manual_seed(0)) * 0.1)
        model[1].bias.zero_()
    return model


def pictures(count, seed=1, low=0.45, high=0.55):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand((count, *SHAPE), generator=generator, dtype=torch.float64)


def null_space(matrix):
    """Orthonormal columns spanning what `matrix` maps to zero."""
    _, values, rows = torch.linalg.svd(matrix, full_matrices=True)
    return rows[(values > 1e-10).sum() :].T


IMAGES, LABELS = pictures(COUNT), torch.arange(COUNT) % CLASSES


def other_batch():
    """Other pictures with the very same update, by the algebra above."""
    weight, flat = classifier()[1].weight.detach(), IMAGES.flatten(1)
    d = (flat @ weight.T).softmax(1) - F.one_hot(LABELS, CLASSES)
    a, b = null_space(d.T), null_space(weight).T
    mixed = torch.randn(a.shape[1], b.shape[0], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = a @ mixed @ b
    return (flat + 0.44 * moved / moved.abs().max()).view_as(IMAGES)


@dataclass(frozen=True, kw_only=True)
class Solver:
    """Reads one picture off the update, and gives `answer` for a batch."""

    name: ClassVar[str] = "solver"
    paper: ClassVar = INVERTIGO
    requires: ClassVar[frozenset] = frozenset()
    domains: ClassVar[frozenset] = frozenset({"images"})
    exact: ClassVar[bool] = False

    answer: object = None
    alone: bool = True
    iterations: int = 10
    restarts: int = 2
    pause: float = 0.0
    error: Exception | None = None
    blind_below: int = 0
    stopped: str = "schedule"

    def reconstruct(self, observation, *, generator, progress=None):
        import time

        count = observation.num_examples
        if self.error is not None and count > 1 and observation.knowledge.level >= self.blind_below:
            raise self.error
        for done in range(1, self.iterations + 1):
            time.sleep(self.pause)
            if progress is not None and progress(Tick(done, self.iterations, 1.0, 0.0, 0.0)):
                return self._found(self._guess(count), "budget")
        if count == 1 and self.alone:
            weight, bias = (observation.update.tensors[name] for name in ("1.weight", "1.bias"))
            return self._found((weight[0] / bias[0]).view(1, *SHAPE), self.stopped)
        usable = count == COUNT and self.answer is not None
        return self._found(self.answer if usable else self._guess(count), self.stopped)

    def _guess(self, count):
        return pictures(count, seed=9, low=0, high=1)

    def _found(self, images, stopped):
        labels = LABELS if len(images) == COUNT else LABELS[: len(images)]
        return Reconstruction({"images": images, "labels": labels}, self.name, 1.0, stopped, 0.0)


@dataclass(frozen=True, kw_only=True)
class Second(Solver):
    name: ClassVar[str] = "second"


PUBLIC = Batch({"images": pictures(130, seed=3, low=0, high=1), "labels": torch.zeros(130, dtype=torch.long)})
RIGHT = Solver(answer=other_batch())


def audited(monkeypatch, *attacks, **options):
    """An audit that would choose `attacks` by itself."""
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(attack) for attack in attacks or (RIGHT,)])
    given = {"domain": Images(SHAPE), "public": PUBLIC, "budget": "20s"} | options
    return audit(classifier(), F.cross_entropy, (IMAGES, LABELS), **given)


def control(found, name):
    return next(control for control in found.record.controls if control.name == name)


def test_the_other_batch_has_the_same_update_and_is_another_batch():
    gradients = []
    for images in (IMAGES, other_batch()):
        model = classifier()
        F.cross_entropy(model(images), LABELS).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*gradients, atol=1e-12)
    assert (other_batch() - IMAGES).square().mean().sqrt() > 0.05
    assert 0 <= other_batch().min() < other_batch().max() <= 1


def test_resists_when_every_control_passed(monkeypatch):
    found = audited(monkeypatch)
    assert {c.name: c.status for c in found.record.controls} == dict.fromkeys(
        ("replay", "schedule", "positive", "fit"), "passed"
    )
    assert found.verdict.status == "resists"
    assert found.record.portfolio == "automatic"
    assert found.verdict.missing == []
    found.assert_below(psnr=60)


@pytest.mark.parametrize(
    ("attacks", "name", "status"),
    [
        ([replace(RIGHT, alone=False)], "positive", "failed"),
        ([Solver()], "fit", "failed"),
        ([replace(RIGHT, iterations=9)], "schedule", "failed"),
        ([replace(RIGHT, restarts=1)], "schedule", "failed"),
        ([replace(RIGHT, stopped="diverged")], "schedule", "failed"),
        ([replace(RIGHT, stopped="budget")], "schedule", "failed"),
    ],
)
def test_each_control_fails_by_itself_and_takes_resists_away(monkeypatch, attacks, name, status):
    found = audited(monkeypatch, *attacks)
    assert control(found, name).status == status
    assert found.verdict.status == "inconclusive"
    assert found.verdict.missing
    with pytest.raises(AssertionError):
        found.assert_below(psnr=60)


@dataclass(frozen=True, kw_only=True)
class Climber(Solver):
    """Rebuilds the batch once it knows the labels, and gives `answer` below that."""

    def reconstruct(self, observation, *, generator, progress=None):
        knows = observation.knowledge.labels is not None and observation.num_examples == COUNT
        return (
            replace(self, answer=IMAGES)._as_solver(observation, generator, progress)
            if knows
            else (self._as_solver(observation, generator, progress))
        )

    def _as_solver(self, observation, generator, progress):
        return Solver.reconstruct(self, observation, generator=generator, progress=progress)


def test_what_a_leak_on_a_higher_rung_says_of_the_lower_ones_needs_controls_too(monkeypatch):
    shown = audited(monkeypatch, Climber(answer=other_batch()))
    lost = audited(monkeypatch, Climber())
    assert [(f.verdict.status, f.verdict.level) for f in (shown, lost)] == [("leaks", 2)] * 2
    assert [control(f, "fit").status for f in (shown, lost)] == ["passed", "failed"]
    assert [check(f.record, level=1).exit_code for f in (shown, lost)] == [0, 3]
    assert [check(f.record, level=2).exit_code for f in (shown, lost)] == [1, 1]
    assert "no evidence of safety there" in lost.verdict.detail
    assert "no evidence of safety" not in shown.verdict.detail


def test_the_optimiser_failed_where_the_truth_explains_the_update_better(monkeypatch):
    found = audited(monkeypatch, Solver())
    facts = control(found, "fit").facts
    assert facts["rung 1: truth"] < 1e-12 < 1e-3 < facts["rung 1: best candidate"]
    assert "optimiser_failed" in {flag.code for flag in found.flags}


def test_an_attack_that_crashes_beside_one_that_ran_forbids_resists_and_costs_nothing_else(monkeypatch):
    found = audited(monkeypatch, RIGHT, Second(error=RuntimeError("broke")))
    assert found.verdict.status == "inconclusive"
    assert "second failed." in found.verdict.missing
    assert [a.status for a in found.record.attacks] == ["ran", "failed"] * 2
    refused = audited(monkeypatch, RIGHT, Second(error=RequirementError("not for this")))
    assert refused.verdict.status == "resists"


def test_a_rung_on_which_every_attack_failed_was_not_examined(monkeypatch):
    found = audited(monkeypatch, replace(RIGHT, error=RuntimeError("broke"), blind_below=2))
    one, two = (found.record.levels[i] for i in (1, 2))
    assert one.examined
    assert one.recovered_interval is not None
    assert not two.examined
    assert two.recovered_interval is None
    assert "broke" in two.reason
    assert found.verdict.status == "inconclusive"


def test_attacks_or_rungs_chosen_by_hand_never_resist(monkeypatch):
    for options in ({"levels": [1]}, {"attacks": [Second(answer=RIGHT.answer)]}):
        found = audited(monkeypatch, **options)
        assert found.record.portfolio == "chosen"
        assert found.verdict.status == "inconclusive"
        assert found.verdict.headline.startswith("Not rebuilt by")


def test_more_than_an_audit_would_choose_is_as_good_and_less_is_not(monkeypatch):
    more = audited(monkeypatch, attacks=[RIGHT, Second(answer=RIGHT.answer)], levels=[1, 2, 3])
    assert more.verdict.status == "resists"
    assert audited(monkeypatch, attacks=[replace(RIGHT, iterations=20)]).record.portfolio == "automatic"
    assert audited(monkeypatch, attacks=[replace(RIGHT, alone=False)]).record.portfolio == "chosen"


def test_too_little_time_says_how_much_would_do(monkeypatch):
    found = audited(monkeypatch, replace(RIGHT, pause=0.5), budget="4s")
    assert found.verdict.status == "inconclusive"
    # Two rungs of ten iterations of 0.5 s, in equal shares of what a fifth of the budget leaves: 10 / 0.8 s.
    assert 12.4 < found.verdict.needs_seconds < 20
    assert "would let every attack finish" in found.verdict.remedy


def test_no_line_up_forbids_resists(monkeypatch):
    few = Batch({name: tensor[:20] for name, tensor in PUBLIC.fields.items()})
    found = audited(monkeypatch, public=few)
    assert found.verdict.status == "inconclusive"
    assert "few_decoys" in {flag.code for flag in found.flags}


def watched(change, batch=(IMAGES, LABELS)):
    """A recorded step with `change(model)` between the backward pass and the step."""
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with federation.watch(model, optimizer, F.cross_entropy, domain=Images(SHAPE)) as tape:
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        change(model)
        optimizer.step()
    return tape


def received(change=lambda gradients: gradients):
    """One gradient by plain autograd, changed on its way."""
    model = classifier()
    gradients = torch.autograd.grad(F.cross_entropy(model(IMAGES), LABELS), list(model.parameters()))
    return Observation.from_gradients(
        model, F.cross_entropy, change(gradients), domain=Images(SHAPE), knowledge=Knowledge(num_examples=COUNT)
    )


def test_a_gradient_by_plain_autograd_is_replayed_to_rounding(monkeypatch):
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(RIGHT)])
    found = audit(received(), truth=(IMAGES, LABELS), public=PUBLIC, budget="20s")
    assert control(found, "replay").status == "passed"
    assert found.verdict.status == "resists"
    assert not {"replay_differs", "update_scaled"} & {flag.code for flag in found.flags}


def test_a_step_that_is_not_the_clients_forbids_resists_and_is_a_fatal_flag(monkeypatch):
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(RIGHT)])
    decayed = received(lambda grads: [g + 0.3 * p for g, p in zip(grads, classifier().parameters())])
    found = audit(decayed, truth=(IMAGES, LABELS), public=PUBLIC, budget="20s")
    assert control(found, "replay").status == "failed"
    (flag,) = [flag for flag in found.flags if flag.code == "replay_differs"]
    assert flag.severity == "fatal"
    assert "1.weight" in flag.message
    assert found.verdict.status == "inconclusive"


def test_leaks_already_proven_stand_beside_a_step_that_differs(monkeypatch):
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(Solver(answer=IMAGES))])
    decayed = received(lambda grads: [g + 0.3 * p for g, p in zip(grads, classifier().parameters())])
    found = audit(decayed, truth=(IMAGES, LABELS), public=PUBLIC, budget="20s")
    assert "replay_differs" in {flag.code for flag in found.flags}
    assert found.verdict.status == "leaks"


def test_a_factor_is_found_said_and_handed_to_the_attacks(monkeypatch):
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Looks(Solver):
        def reconstruct(self, observation, *, generator, progress=None):
            seen.append(observation.update.norm)
            return super().reconstruct(observation, generator=generator, progress=progress)

    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(Looks(answer=RIGHT.answer))])
    scaled = received(lambda grads: [0.07 * g for g in grads])
    found = audit(scaled, truth=(IMAGES, LABELS), public=PUBLIC, budget="20s")
    (flag,) = [flag for flag in found.flags if flag.code == "update_scaled"]
    assert "0.07 times" in flag.message
    assert seen[0] == pytest.approx(received().update.norm, rel=1e-9)
    assert found.verdict.status == "resists"  # the truth lies in the span of the control


def test_clipping_between_backward_and_step_does_not_spoil_the_replay(monkeypatch):
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(RIGHT)])
    tape = watched(lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
    assert control(audit(tape, public=PUBLIC, budget="20s"), "replay").status == "passed"


@pytest.mark.parametrize(
    "defense", [{"name": "gaussian_noise", "std": 1e-3}, {"name": "top_k"}, {"name": "clip"}, {"name": "sign"}]
)
def test_a_defense_does_not_spoil_the_replay(monkeypatch, defense):
    found = audited(monkeypatch, defense=defense)
    assert control(found, "replay").status == "passed"


@pytest.mark.parametrize("defense", [{"name": "gaussian_noise", "std": 1e-3}, {"name": "top_k"}])
def test_a_wrong_step_does_not_hide_behind_a_defense(monkeypatch, defense):
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(RIGHT)])

    def decay(model):
        for p in model.parameters():
            p.grad += 0.3 * p.detach()

    found = audit(watched(decay), public=PUBLIC, budget="20s", defense=defense)
    assert control(found, "replay").status == "failed"
    assert "replay_differs" in {flag.code for flag in found.flags}


def release(defense, change=lambda gradient: gradient):
    """What a client with this defense sends, from a gradient by plain autograd; noise is added by hand."""
    observation = received(lambda grads: [change(g) for g in grads])
    noisy = {
        name: t + defense["std"] * torch.randn(t.shape, generator=torch.Generator().manual_seed(5), dtype=t.dtype)
        for name, t in observation.update.tensors.items()
    }
    return replace(observation, update=replace(observation.update, tensors=noisy))


@pytest.mark.parametrize(
    ("std", "factor", "status"), [(1e-5, 1.0, "passed"), (1e-5, 1.5, "failed"), (10.0, 1.0, "unknown")]
)
def test_an_update_handed_over_from_behind_noise_is_held_to_what_the_noise_allows(monkeypatch, std, factor, status):
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(RIGHT)])
    defense = {"name": "gaussian_noise", "std": std}
    seen = release(defense, lambda gradient: factor * gradient)
    found = audit(seen, truth=(IMAGES, LABELS), public=PUBLIC, budget="20s", defense=defense)
    assert control(found, "replay").status == status


def test_dropout_called_as_a_function_forbids_resists(monkeypatch):
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = classifier()

        def forward(self, x):
            return self.inner[1](F.dropout(x.flatten(1), 0.3, self.training))

    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(Second(answer=RIGHT.answer, alone=False))])
    model = Drops()
    found = audit(model, F.cross_entropy, (IMAGES, LABELS), domain=Images(SHAPE), public=PUBLIC, budget="20s")
    assert "dropout_unmodelled" in {flag.code for flag in found.flags}
    assert control(found, "replay").status == "failed"
    assert found.verdict.status == "inconclusive"


def test_a_replay_that_breaks_is_unknown_and_forbids_resists(monkeypatch):
    def broken(*_args, **_more):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("invertigo.auditing.controls.replaying.replay", broken)
    found = audited(monkeypatch)
    assert control(found, "replay").status == "unknown"
    assert "no such kernel" in control(found, "replay").summary
    assert found.verdict.status == "inconclusive"


def test_a_positive_control_that_breaks_is_unknown_and_forbids_resists(monkeypatch):
    def broken(*_args, **_more):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("invertigo.auditing.controls.positive.easier", broken)
    found = audited(monkeypatch)
    assert control(found, "positive").status == "unknown"
    assert found.verdict.status == "inconclusive"


def test_a_judge_that_breaks_costs_no_other_result(monkeypatch):
    wrong = torch.zeros(COUNT, 1, 4, 4, dtype=torch.float64)  # pictures of another shape cannot be scored
    found = audited(monkeypatch, Second(answer=wrong), Solver(answer=IMAGES))
    assert [a.status for a in found.record.attacks][:2] == ["failed", "ran"]
    assert found.verdict.status == "leaks"


def test_examples_outside_the_range_of_their_domain_are_a_fatal_flag(monkeypatch):
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(Second())])
    batch = (IMAGES * 4 - 2, LABELS)  # between -0.6 and 0.6, normalised by a mean and a deviation nobody stated
    found = audit(classifier(), F.cross_entropy, batch, domain=Images(SHAPE), public=PUBLIC, budget="20s")
    (flag,) = [flag for flag in found.flags if flag.code == "outside_range"]
    assert flag.severity == "fatal"


def test_a_picture_that_scores_like_a_guess_is_a_doubt_and_no_leak(monkeypatch):
    tilted = 0.5 + 0.02 * torch.linspace(-1, 1, 8, dtype=torch.float64).expand(1, 8, 8)
    faint = tilted + 0.001 * (pictures(2, seed=7) - 0.5)
    bright = (faint - 0.5) * 20 + 0.5  # the same picture with twenty times the contrast: below mid-grey in PSNR
    monkeypatch.setattr(portfolio, "_automatic", lambda *_: [Entry(Pair(answer=bright))])
    batch = (faint, LABELS[:2])
    found = audit(classifier(), F.cross_entropy, batch, domain=Images(SHAPE), public=PUBLIC, budget="20s")
    first = found.record.attacks[0]
    if first.doubtful:  # where the criterion itself would have called it recognisable
        assert "doubtful_recognition" in {flag.code for flag in found.flags}
    assert found.verdict.status == "inconclusive"
    assert first.recovered == 0


@dataclass(frozen=True, kw_only=True)
class Pair(Solver):
    def reconstruct(self, observation, *, generator, progress=None):
        images = self.answer if observation.num_examples == 2 else self._guess(observation.num_examples)
        return Reconstruction({"images": images, "labels": LABELS[: len(images)]}, self.name, 1.0, "schedule", 0.0)


def test_several_clients_whose_mean_is_no_step_leave_rung_zero_unexamined(monkeypatch):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.inner = nn.BatchNorm1d(64).double(), classifier()

        def forward(self, x):
            return self.inner[1](self.norm(x.flatten(1)))

    from invertigo.auditing.auditor import run_audit
    from invertigo.auditing.case import Case
    from invertigo.types import Task

    other = Batch({"images": pictures(COUNT, seed=4), "labels": LABELS})
    case = Case(
        Task(Normed(), F.cross_entropy, Images(SHAPE), CLASSES), LocalTraining(),
        Batch({"images": IMAGES, "labels": LABELS}), others=[other], lineup=PUBLIC,
    )  # fmt: skip
    found = run_audit(
        case, attacks=[Second()], levels=[0, 1], budget=20.0, seed=0, decoys=100, progress=None, command=""
    )
    assert not found.record.levels[0].examined
    assert "no single step" in found.record.levels[0].reason
    assert control(found, "replay").status == "passed"  # rung 1 is the client's own step


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (InvertingGradients(), []),
        (InvertingGradients(iterations=480), [("iterations", 480, 4800)]),
        (InvertingGradients(iterations=9600), []),
        (GaussNewton(cg_steps=10, approach=0), [("approach", 0, 500), ("cg_steps", 10, 1000)]),
    ],
)
def test_less_work_than_the_default_is_curtailed(attack, expected):
    assert sorted(curtailed(attack)) == expected


def record(name="inverting_gradients", level=1, **facts):
    given = {"paper": "p", "exact": False, "status": "ran", "stopped": "schedule", "outcomes": ["nothing"]}
    return AttackRecord(level=level, attack=name, **(given | facts))


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "passed"),
        ({"stopped": "converged"}, "passed"),
        ({"stopped": "budget"}, "failed"),
        ({"stopped": "diverged"}, "failed"),
        ({"status": "skipped", "outcomes": []}, "unknown"),
    ],
)
def test_the_schedule_control(facts, status):
    assert schedule_control([record(**facts)], [Entry(InvertingGradients())]).status == status


def test_one_iteration_or_a_tenth_never_suffices():
    for iterations in (1, 480, 4799):
        short = schedule_control([record()], [Entry(InvertingGradients(iterations=iterations), pinned=True)])
        assert short.status == "failed"
        assert f"{iterations:,} of its 4,800" in short.summary


def test_the_time_of_a_full_schedule_follows_from_its_pace():
    assert seconds_needed(InvertingGradients(), 480, 6.0) == pytest.approx(60.0)
    assert seconds_needed(InvertingGradients(), 4800, 60.0) == pytest.approx(60.0)
    assert seconds_needed(InvertingGradients(), 0, 6.0) is None


def test_a_budget_in_equal_shares_must_hold_the_longest_attack_at_its_turn():
    records = [record(level=1, seconds_needed=30.0, seconds=3.0), record(level=2, seconds_needed=10.0, seconds=3.0)]
    # The first of two gets half of the budget, so 60 s; then the second finds 30 s left of which it needs 10.
    assert budget_needed(records, 0.0, 0.0) == pytest.approx(60.0)
    assert budget_needed(records, 5.0, 0.2) == pytest.approx(65.0 / 0.8)
    skipped = record(level=2, status="skipped", outcomes=[])
    assert budget_needed([records[0], skipped], 0.0, 0.0) == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("truth", "guess", "best", "status"),
    [
        (0.0, 1.0, 1e-9, "passed"),
        (0.0, 1.0, 1e-3, "failed"),
        (0.0, 1e-3, 5e-9, "passed"),
        (0.0, 1e-6, 5e-9, "failed"),  # of what the pictures put into the update, half a percent is unexplained
        (0.8, 1.0, 0.7, "passed"),  # noise: the candidate explains more than the truth can
        (0.8, 1.0, 0.9, "failed"),
        (0.97, 0.999, 0.986, "failed"),  # in heavy noise nearly everything is left over, by a wrong picture too
        (0.97, 0.999, 0.965, "passed"),
        (0.97, 0.97, 0.98, "failed"),  # worse than a blank picture
        (0.5, None, 0.51, "failed"),
        (None, 1.0, 1e-9, "unknown"),
        (1.3, 1.0, 1.2, "unknown"),  # a truth that explains nothing is no measure
        (0.0, 1.0, None, "unknown"),
        (0.0, 1.0, float("nan"), "unknown"),
    ],
)
def test_the_fit_control(truth, guess, best, status):
    measure = {(1, False): Yardstick(truth, guess, torch.float64)}
    assert fit_control([record(residual_up_to_scale=best)], measure).status == status
