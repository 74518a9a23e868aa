"""DP-SGD and user-level DP do what Opacus does, report Opacus' epsilon, and refuse budgets that would be untrue."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from invertigo import defenses
from invertigo.federation import train_locally
from invertigo.federation.client import train
from invertigo.types import InvalidValueError, LocalTraining

opacus = pytest.importorskip("opacus", reason="pip install 'invertigo[dp]'")
pytestmark = pytest.mark.filterwarnings("ignore")


def opacus_step(task, batch, *, clip, lr):
    """The parameters after one step of Opacus' own optimizer with the noise switched off."""
    module = opacus.GradSampleModule(copy.deepcopy(task.model))
    inner = torch.optim.SGD(module.parameters(), lr=lr)
    optimizer = opacus.optimizers.DPOptimizer(
        inner, noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=len(batch)
    )
    nn.functional.cross_entropy(module(batch["images"]), batch["labels"]).backward()
    optimizer.step()
    return {name: p.detach() for name, p in module._module.named_parameters()}


def test_a_step_without_noise_is_opacus_own(client):
    task, batch = client
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    for clip in (0.5, 100.0):
        expected = opacus_step(task, batch, clip=clip, lr=0.1)
        local = LocalTraining(sends="difference", learning_rate=0.1)
        sent = train_locally(task, batch, local, defense=defenses.DPSGD(clip=clip, noise_multiplier=0.0)).tensors
        for name in expected:
            # Opacus divides by the length plus 1e-6.
            assert torch.allclose(sent[name], expected[name] - before[name], rtol=1e-5, atol=1e-9), name


def test_noise_is_sigma_times_clip_over_batch_size(client):
    task, batch = client
    quiet = train_locally(task, batch, LocalTraining(), defense=defenses.DPSGD(clip=0.5, noise_multiplier=0.0)).tensors
    noisy = train(task, batch, LocalTraining(), defense=defenses.DPSGD(clip=0.5, noise_multiplier=2.0))
    noise = torch.cat([(noisy.update.tensors[k] - quiet[k]).flatten() for k in quiet])
    std = 2.0 * 0.5 / len(batch)
    assert float(noise.std()) == pytest.approx(std, rel=0.1)
    assert noisy.trace.facts["noise_std"] == pytest.approx(std)


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_epsilon_is_that_of_opacus_own_privacy_engine(client, accountant):
    task, batch = client
    model = nn.Linear(4, 2)
    loader = DataLoader(TensorDataset(torch.randn(16, 4), torch.zeros(16).long()), batch_size=4)
    engine = opacus.PrivacyEngine(accountant=accountant)
    model, optimizer, loader = engine.make_private(
        module=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), data_loader=loader,
        noise_multiplier=1.1, max_grad_norm=1.0,
    )  # fmt: skip
    taken = 0
    for inputs, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        taken += 1
    defense = defenses.DPSGD(noise_multiplier=1.1, sample_rate=0.25, steps=taken, accountant=accountant)
    facts = train(task, batch, LocalTraining(), defense=defense).trace.facts
    assert facts["epsilon"] == pytest.approx(engine.get_epsilon(delta=1e-5), rel=1e-9)
    assert facts["delta"] == 1e-5


def test_more_steps_than_declared_are_counted(client):
    task, batch = client
    defense = defenses.DPSGD(steps=2)
    local = LocalTraining(sends="difference", batch_size=1)
    facts = train(task, batch, local, defense=defense, number=2).trace.facts
    declared = train(task, batch, LocalTraining(), defense=defenses.DPSGD(steps=3 * len(batch))).trace.facts
    assert facts["epsilon"] == declared["epsilon"]


def test_the_tighter_accountant_reports_less(client):
    task, batch = client
    told = [
        train(task, batch, LocalTraining(), defense=defenses.DPSGD(sample_rate=0.1, steps=100, accountant=name))
        for name in ("rdp", "prv")
    ]
    rdp, prv = (t.trace.facts["epsilon"] for t in told)
    assert 0.5 * rdp < prv < rdp


def test_user_dp_clips_adds_noise_and_composes_over_rounds(client):
    task, batch = client
    once, often = (
        train(task, batch, LocalTraining(), defense=defenses.UserDP(rounds=rounds)).trace.facts for rounds in (1, 50)
    )
    late = train(task, batch, LocalTraining(), defense=defenses.UserDP(), number=49).trace.facts
    assert once["epsilon"] < often["epsilon"] == late["epsilon"]
    # One Gaussian release at z = 1 costs sqrt(2 ln(1.25/delta)) by the classical bound; Opacus' is no larger.
    assert once["epsilon"] <= math.sqrt(2 * math.log(1.25 / 1e-5))
    assert once["noise_std"] == 2.0


def test_replacing_a_client_needs_twice_the_clip():
    with pytest.raises(InvalidValueError, match=r"1 .*can lie 2 apart[\s\S]*at least 2"):
        defenses.UserDP(clip=1.0, sensitivity=1.0)
    with pytest.raises(InvalidValueError, match="at least 1"):
        defenses.UserDP(clip=1.0, sensitivity=0.5, neighbours="add_remove")
    assert defenses.UserDP(clip=1.0, neighbours="add_remove").noise_std == 1.0
    assert defenses.UserDP(clip=1.0, sensitivity=3.0).noise_std == 3.0


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"noise_multiplier": -1.0}, "negative"), ({"delta": 0.0}, "delta"), ({"sample_rate": 1.5}, "share"),
     ({"steps": 0}, "at least one"), ({"clip": 0.0}, "positive")],
)  # fmt: skip
def test_budgets_that_mean_nothing_are_refused(settings, told):
    with pytest.raises(InvalidValueError, match=told):
        defenses.DPSGD(**settings)


def test_noise_over_local_steps_adds_up_as_the_view_says(client):
    task, batch = client
    from invertigo.federation import observe_round

    local = LocalTraining(sends="difference", learning_rate=0.5, momentum=0.5, epochs=2, batch_size=2)
    defense = defenses.DPSGD(clip=1e-9, noise_multiplier=1e9)  # next to nothing but noise of std 1 over batch size
    seen = observe_round(task, batch, local, level=1, defense=defense).observation
    entries = torch.cat([t.flatten() for t in seen.update.tensors.values()])
    view = defense.adversary_view(seen)
    assert float(entries.std()) == pytest.approx(next(iter(view.noise_std.values())), rel=0.1)
