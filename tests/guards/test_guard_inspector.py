"""A client's guard: honest models pass, planted ones do not, and what leaks is counted rightly."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo import attacks, data, models
from invertigo.domains import Images
from invertigo.federation import per_example_gradients, send, train_locally
from invertigo.guards import DSNR, FewExamples, Inspector, Isolation, inspect_file
from invertigo.guards.evaluation import Adversary, area, run
from invertigo.guards.self_reading import decibels
from invertigo.guards.signals import signals_of
from invertigo.guards.simulation import Setting, deal, federation
from invertigo.types import (
    Batch,
    Declared,
    Finding,
    GuardVerdict,
    History,
    Local,
    LocalTraining,
    Received,
    Task,
)

DIGITS = data.load("digits")
GRADIENT = LocalTraining()


def mlp(generator: torch.Generator) -> nn.Module:
    return models.build("mlp", input_shape=DIGITS.shape, num_classes=10, hidden=(128, 64), generator=generator)


def task(model: nn.Module) -> Task:
    return Task(model, cross_entropy, Images(shape=DIGITS.shape), 10)


@pytest.fixture(scope="module")
def client() -> tuple[Task, Batch, Batch]:
    return task(mlp(torch.Generator().manual_seed(1))), DIGITS.batch(slice(0, 64)), DIGITS.batch(slice(900, 1300))


def look(own: Task, sent: Task, batch: Batch, history: History | None = None, **declared) -> GuardVerdict:
    local = Local(
        task=own, batch=batch, update=train_locally(sent, batch, GRADIENT), round=len((history or History()).visits),
        declared=Declared(**declared),
    )  # fmt: skip
    return Inspector().inspect(Received(sent.model.state_dict()), history or History(), local)


def planted(own: Task, public: Batch, name: str, **settings) -> Task:
    attack = attacks.registry[name](**settings)
    generator = torch.Generator().manual_seed(0)
    return send(own, attack.plant(own, GRADIENT, public=public, num_examples=64, clients=1, generator=generator))


def test_an_honest_model_passes_all_gates(client):
    own, batch, _ = client
    verdict = look(own, own, batch)
    assert verdict.decision == "pass"
    assert not verdict.findings
    assert {f.gate for f in verdict.observed} == {"load", "train", "send"}
    assert set(verdict.skipped) == {"broadcast", "first_model", "loss_jump"}


@pytest.mark.parametrize(
    ("name", "settings", "rule"),
    [
        ("imprint", {}, "duplicate_rows"),
        ("trap_weights", {}, "sign_balance"),
        ("quantile_bias", {}, "row_tails"),
        ("quantile_bias", {"calibrated": True, "share": 0.1}, "row_tails"),
        ("class_fishing", {}, "head_rows"),
        ("feature_fishing", {}, "head_rows"),
    ],
)
def test_a_planted_model_is_blocked_by_the_rule_made_for_it(client, name, settings, rule):
    own, batch, public = client
    verdict = look(own, planted(own, public, name, **settings), batch)
    assert verdict.decision == "block"
    assert verdict.malicious
    assert rule in {f.rule for f in verdict.findings}
    found = next(f for f in verdict.findings if f.rule == rule)
    assert found.rows
    assert found.layer
    assert found.action


def test_a_layer_of_crafted_rows_is_named_with_the_rows(client):
    own, batch, public = client
    verdict = look(own, planted(own, public, "quantile_bias", calibrated=True, share=0.1), batch)
    found = next(f for f in verdict.findings if f.rule == "row_tails")
    assert found.layer == "body.1"
    assert set(found.rows) <= set(range(13))


def test_the_message_tells_constant_columns(client):
    own, batch, public = client
    verdict = look(own, planted(own, public, "imprint"), batch)
    assert "constant columns" in next(f.message for f in verdict.findings if f.rule == "duplicate_rows")


def test_copying_kernels_are_found():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    own = Task(model, cross_entropy, Images(shape=(3, 8, 8)), 10)
    batch = Batch({"images": torch.rand(16, 3, 8, 8), "labels": torch.arange(16) % 10})
    crafted = {k: v.clone() for k, v in model.state_dict().items()}
    nn.init.dirac_(crafted["0.weight"])
    local = Local(task=own, batch=batch)
    verdict = Inspector().inspect(Received(crafted), History(), local)
    assert {"copying_kernels", "transmission_snr"} <= {f.rule for f in verdict.findings}
    allowed = dataclasses.replace(local, declared=Declared(looks=frozenset({"dirac"})))
    assert Inspector().inspect(Received(crafted), History(), allowed).decision == "pass"


@pytest.mark.parametrize("look_alike", ["zero_head", "pruned", "quantised"])
def test_declared_look_alikes_pass(client, look_alike):
    own, batch, _ = client
    model = mlp(torch.Generator().manual_seed(5))
    with torch.no_grad():
        if look_alike == "zero_head":
            model.head.weight.zero_()
            model.head.bias.zero_()
        for weight in (p for p in model.parameters() if p.ndim > 1):
            if look_alike == "pruned":
                weight.mul_(weight.abs() > weight.abs().median())
            if look_alike == "quantised":
                weight.copy_((weight * 127 / weight.abs().max()).round() * weight.abs().max() / 127)
    assert look(own, task(model), batch, looks=frozenset({look_alike})).decision == "pass"


def test_d_snr_is_that_of_naive_per_example_gradients():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip
    own = Task(model, cross_entropy, Images(shape=(2, 8, 8)), 5)
    batch = Batch(
        {"images": torch.rand(9, 2, 8, 8, generator=generator), "labels": torch.randint(5, (9,), generator=generator)}
    )
    each = per_example_gradients(own, model, batch)
    ratios = []
    for name, gradient in each.items():
        if name.endswith("weight"):
            norms = gradient.flatten(1).norm(dim=1)
            ratios.append(float(norms.max() / (norms.sum() - norms.max() + 1e-6)))
    (found,) = DSNR().inspect(Received(model.state_dict()), History(), Local(task=own, batch=batch))
    assert found.statistic == pytest.approx(max(ratios), rel=1e-4)


def test_isolation_counts_the_examples_that_a_naive_reader_gets(client):
    """An example is isolated when some row's gradient ratio is its image."""
    own, _, _ = client
    batch = DIGITS.batch(slice(0, 12))
    update = train_locally(own, batch, GRADIENT).tensors
    ratio = update["body.1.weight"].double() / update["body.1.bias"].double()[:, None]
    images = batch["images"].flatten(1).double()
    read = {i for i in range(12) if bool(((ratio - images[i]).abs().amax(1) < 1e-3).any())}
    found = Isolation().inspect(Received(own.model.state_dict()), History(), Local(task=own, batch=batch))
    rows = next(f for f in found if f.figure == "rows:body.1.weight")
    assert len(read) > 3
    assert read <= set(rows.examples)
    assert rows.kind == "leak"
    assert rows.of == 12
    assert rows.p_value is None


def test_a_small_honest_batch_leaks_no_more_than_honest_models_do(client):
    own, _, _ = client
    verdict = look(own, own, DIGITS.batch(slice(0, 3)))
    assert verdict.decision == "pass"
    assert not verdict.drop
    assert set(verdict.recoverable) == {0, 1, 2}


def test_what_is_read_off_a_real_update_is_found(client):
    own, _, _ = client
    batch = DIGITS.batch(slice(0, 1))
    verdict = look(own, own, batch)
    found = next(f for f in verdict.observed if f.figure == "update:body.1.weight")
    assert found.examples == (0,)


def refused(client, changed) -> GuardVerdict:
    own, batch, _ = client
    return Inspector().inspect(Received(changed), History(), Local(task=own, batch=batch))


def test_what_does_not_fit_is_blocked_before_it_is_loaded(client):
    own = client[0].model.state_dict()
    nan = {k: v.clone() for k, v in own.items()}
    nan["head.bias"][3] = float("nan")
    cases = {
        "shape": {**own, "head.bias": torch.zeros(11)},
        "missing": {k: v for k, v in own.items() if k != "head.bias"},
        "extra": {**own, "backdoor.weight": torch.zeros(2)},
        "dtype": {**own, "head.bias": own["head.bias"].double()},
        "nan": nan,
    }
    for name, changed in cases.items():
        verdict = refused(client, changed)
        assert verdict.decision == "block", name
        assert verdict.findings[0].kind == "defect"
        assert {f.gate for f in verdict.observed} == {"load"}, "a model that is not loaded is not looked at further"


def test_a_model_of_ones_own_is_noticed(client):
    own, batch, _ = client
    announced = Received(own.model.state_dict()).fingerprint
    assert look(own, own, batch, fingerprint=announced).decision == "pass"
    other = task(mlp(torch.Generator().manual_seed(2)))
    verdict = look(own, other, batch, fingerprint=announced)
    assert verdict.decision == "block"
    assert verdict.findings[0].rule == "broadcast"


def test_the_first_model_is_held_against_its_declared_initialisation(client):
    own, batch, _ = client
    for seed in range(3):
        assert look(own, task(mlp(torch.Generator().manual_seed(40 + seed))), batch, initial=mlp).decision == "pass"
    wide = task(mlp(torch.Generator().manual_seed(3)))
    with torch.no_grad():
        wide.model.body[1].weight.mul_(1.5)
    verdict = look(own, wide, batch, initial=mlp)
    assert "first_model" in {f.rule for f in verdict.findings}
    later = History().add(GuardVerdict("pass", figures={"loss_level": 2.3}))
    assert "first_model" in look(own, wide, batch, later, initial=mlp).skipped


def test_a_loss_that_no_honest_model_has_is_blocked_and_one_that_jumps_is_noticed(client):
    own, batch, _ = client
    mad = task(mlp(torch.Generator().manual_seed(3)))
    with torch.no_grad():
        mad.model.head.weight.mul_(2000)
    verdict = look(own, mad, batch)
    assert "loss_level" in {f.rule for f in verdict.findings}
    history = History()
    for number in (0, 1, 4, 9, 10, 15, 22, 23):
        history = history.add(GuardVerdict("pass", round=number, figures={"loss_level": 2.3 * 0.8**number}))
    verdict = look(own, own, batch, history)
    assert "loss_jump" in {f.rule for f in verdict.observed if f.p_value is not None and f.p_value < 5e-3}


def test_a_loss_that_a_few_examples_make_up_is_noticed_where_its_mean_is_not(client):
    own, batch, _ = client
    shaped = task(mlp(torch.Generator().manual_seed(3)))
    with torch.no_grad():
        shaped.model.head.bias[0] = -60.0  # examples of class 0 cost 60, a tenth of the batch
    found = {f.rule: f.p_value for f in look(own, shaped, batch).observed}
    assert found["loss_level"] > 1e-4
    assert found["loss_tail"] < 1e-8


def test_signals_add_up_to_the_update(client):
    own, batch, _ = client
    update = train_locally(own, batch, GRADIENT).tensors
    signals = signals_of(Received(own.model.state_dict()), Local(task=own, batch=batch))
    for name, layer in signals.layers.items():
        assert torch.allclose(layer.slopes.mean(0), update[f"{name}.bias"], atol=1e-6)
    assert signals.losses is not None
    assert float(signals.losses.mean()) == pytest.approx(signals.loss, rel=1e-5)


def test_a_history_survives_json_and_starts_anew_when_it_cannot_be_read():
    history = History().add(GuardVerdict("pass", figures={"loss_level": 2.0}, round=3, fingerprint="ab"))
    read, warning = History.loads(history.dumps())
    assert read == history
    assert warning is None
    for broken in ("{", "[]", json.dumps({"version": 99}), history.dumps().replace("2.0", "NaN"), '{"version": 1}'):
        read, warning = History.loads(broken)
        assert read == History()
        assert warning
        assert "anew" in warning
    assert History.loads(None) == (History(), None)


def test_refused_rounds_count_against_the_budget_and_not_for_the_trend():
    history = History().add(GuardVerdict("block", figures={"loss_level": 90.0}, round=1))
    assert history.inspections == 1
    assert history.clean("loss_level") == []


def test_a_file_is_inspected_without_a_model(client):
    own, _, public = client
    honest = Received(own.model.state_dict())
    assert inspect_file(honest, None).decision == "pass"
    crafted = Received(planted(own, public, "imprint").model.state_dict())
    assert inspect_file(crafted, None, previous=[honest]).decision == "block"
    moved = {k: v + 0.01 if k == "body.1.bias" else v for k, v in honest.tensors.items()}
    found = inspect_file(Received(moved), None, previous=[honest])
    assert [f.rule for f in found.findings] == ["moved_layers"]


def test_an_honest_federation_raises_no_alarm_and_an_attacked_one_does():
    training = LocalTraining(sends="difference", learning_rate=0.2, epochs=1, batch_size=32)
    setting = Setting(clients=5, rounds=4, concentration=0.3, training=training)
    world = federation(task(mlp(torch.Generator().manual_seed(0))), DIGITS.batch(slice(None)), setting)
    adversaries = [Adversary("imprint", "imprint", {"permute": True}), Adversary("fish", "class_fishing")]
    checks = list(run(world, Inspector(), adversaries, at=(0, 3)))
    honest, attacked = ([c for c in checks if bool(c.adversary) is kind] for kind in (False, True))
    assert len(honest) == 20
    assert len(attacked) == 4
    assert not [c for c in honest if c.flagged]
    assert all(c.flagged for c in attacked)
    assert honest[-1].loss < honest[0].loss
    assert all(c.rebuilt > 0.3 > c.honest for c in attacked if c.adversary == "imprint")
    assert all(c.rebuilt is None and c.behind < c.honest_behind for c in attacked if c.adversary == "fish")
    assert area([c.score for c in honest], [c.score for c in attacked]) == 1.0


def test_dirichlet_shares_are_uneven_and_nobody_gets_an_example_twice():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1000) % 10
    parts = deal(labels, 10, 0.3, generator)
    assert sorted(torch.cat(parts).tolist()) == list(range(1000))
    top = [int(torch.bincount(labels[p], minlength=10).max()) for p in parts]
    assert max(top) > 40
    assert all(len(p) == 100 for p in deal(labels, 10, None, generator))


def test_features_that_hardly_differ_are_not_read_by_their_mean():
    generator = torch.Generator().manual_seed(0)
    mean = torch.rand(32, generator=generator) + 1
    alike = mean + 1e-3 * torch.randn(20, 32, generator=generator)
    assert decibels(mean[None].double(), alike.double()).max() < 3
    read = decibels(1e-30 * alike[[7]].double(), alike.double())[:, 0] > 20
    assert read.nonzero().tolist() == [[7]]


def shaped(slope: float, wanted: int = 0) -> Task:
    """A model that is right, but for the examples of one class, which cost much less than any test of losses sees."""
    own = task(mlp(torch.Generator().manual_seed(3)))
    generator = torch.Generator().manual_seed(4)
    many = DIGITS.batch(slice(64, 1000))
    state = own.model.state_dict()
    for _ in range(12):
        step = train_locally(
            own, many, LocalTraining(sends="difference", learning_rate=0.5, batch_size=32), generator=generator
        )
        state = {k: v + step.tensors[k] for k, v in state.items()}
        own.model.load_state_dict(state)
    with torch.no_grad():
        own.model.head.bias[wanted] -= slope
        own.model.head.weight.mul_(3)
    return own


def remembered(*shares: float) -> History:
    history = History()
    for number, share in enumerate(shares):
        history = history.add(GuardVerdict("pass", round=number, figures={"few_examples": share}))
    return history


def few(own: Task, batch: Batch, history: History | None = None) -> Finding:
    """What the rule says of a model in the client's hands."""
    local = Local(task=own, batch=batch)
    return FewExamples().inspect(Received(own.model.state_dict()), history or History(), local)[0]


def test_an_update_of_few_examples_is_a_leak_unless_it_became_one_slowly(client):
    _, batch, _ = client
    own = shaped(4.0)
    share = few(own, batch).statistic
    assert share < 1 / 6
    verdict = look(own, own, batch, remembered(0.95, 0.9, 0.85))
    assert "few_examples" in {f.rule for f in verdict.findings}
    assert verdict.leaking
    assert not few(own, batch, remembered(0.95, 0.5, 0.3, share * 1.3)).alarming
    fell = few(own, batch, remembered(0.9, share * 2.5, share * 2.4))
    assert not fell.alarming, "it once fell by more, as models do that a client sees rarely"


def test_examples_that_make_up_an_update_are_those_with_the_longest_gradients(client):
    _, batch, _ = client
    own = shaped(4.0)
    found = few(own, batch, remembered(0.95, 0.9))
    each = per_example_gradients(own, own.model, batch)
    norms = torch.stack([g.flatten(1).double().square().sum(1) for g in each.values()]).sum(0).sqrt()
    assert found.statistic == pytest.approx(float(norms.sum() ** 2 / (64 * norms.square().sum())), rel=1e-4)
    assert set(found.examples) == set(norms.argsort(descending=True)[: len(found.examples)].tolist())


def test_a_fresh_model_and_a_small_batch_are_no_matter_of_few_examples(client):
    own, batch, _ = client
    assert few(own, batch).statistic > 0.9
    assert not few(own, batch).alarming
    assert (
        FewExamples().inspect(
            Received(own.model.state_dict()), History(), Local(task=own, batch=batch.select(slice(0, 7)))
        )
        == ()
    )


def test_a_file_of_another_form_than_the_round_before_is_refused(client):
    honest = Received(client[0].model.state_dict())
    other = {**honest.tensors, "head.bias": torch.zeros(11)}
    verdict = inspect_file(Received(other), None, previous=[honest])
    assert verdict.decision == "block"
    assert verdict.findings[0].kind == "defect"
    assert "'head.bias' is float32 (11,), was float32 (10,)" in verdict.findings[0].message


def test_a_model_that_always_answers_with_a_clients_commonest_class_is_no_matter_of_few_examples(client):
    _, batch, _ = client
    labels = torch.zeros(64, dtype=torch.long)
    labels[:6] = 1  # the client's own labels; the model below always answers with class 0
    mine = Batch({"images": batch["images"], "labels": labels})
    own = task(mlp(torch.Generator().manual_seed(3)))
    with torch.no_grad():
        own.model.head.weight.mul_(0.01)
        own.model.head.bias.copy_(torch.tensor([7.0, 3.0, *[-3.0] * 8]))
    found = few(own, mine, remembered(0.97, 0.95))
    assert found.statistic < 1 / 6
    assert not found.alarming
