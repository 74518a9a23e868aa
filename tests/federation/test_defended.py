"""A defended client: the hooks act where they say, and the trace measures what they did."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo.attacks.matching.engine import Matching
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.levenberg_marquardt import LevenbergMarquardt
from invertigo.attacks.matching.objectives import SquaredL2
from invertigo.domains import Images
from invertigo.federation import observe, observe_round, per_example_gradients, simulating, train_locally
from invertigo.federation.client import train
from invertigo.testing import ContractError, check_defense, easy_client
from invertigo.testing.defenses import check_does_something, check_secret_when_not_seeded, check_writes_to_nothing
from invertigo.types import INVERTIGO, AdversaryView, Batch, Defense, InvalidValueError, LocalTraining, Task

FEDAVG = LocalTraining(sends="difference", epochs=2, batch_size=2, learning_rate=0.1, momentum=0.5)


@dataclass(frozen=True, kw_only=True)
class Noise(Defense):
    """Adds Gaussian noise of deviation `std` to the release."""

    name: ClassVar[str] = "test_noise"
    paper: ClassVar = INVERTIGO
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "std"
    strengths: ClassVar[tuple[float, ...]] = (1e-3, 1e-2)

    std: float = 0.01

    def on_update(self, update, step):
        return {
            k: t + self.std * torch.randn(t.shape, generator=step.generator, dtype=t.dtype) for k, t in update.items()
        }

    def adversary_view(self, observation):
        return AdversaryView(knows="The deviation of the noise.")


@dataclass(frozen=True, kw_only=True)
class Halved(Noise):
    """Halves every step's gradient, and brightens the batch by `glow`."""

    glow: float = 0.0

    def on_batch(self, batch, step):
        return Batch({**batch.fields, "images": batch["images"] + self.glow}) if self.glow else batch

    def on_gradient(self, gradient, step):
        step.facts["steps"] = step.facts.get("steps", 0.0) + 1
        return {k: g / 2 for k, g in gradient.items()}

    def on_update(self, update, step):
        return update


def secret(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_gradient_is_defended_before_it_is_sent():
    client = easy_client()
    raw = train_locally(client.task, client.batch, client.local).tensors
    found = train(client.task, client.batch, client.local, defense=Halved())
    assert all(torch.equal(found.update.tensors[k], raw[k] / 2) for k in raw)
    assert found.trace.norm_ratio == pytest.approx(0.5)
    assert found.trace.cosine == pytest.approx(1.0)
    assert not found.trace.undefended


def test_local_steps_descend_along_the_defended_gradient():
    client = easy_client()
    slow = LocalTraining(**{**vars(FEDAVG), "learning_rate": FEDAVG.learning_rate / 2})
    expected = train_locally(client.task, client.batch, slow).tensors
    found = train(client.task, client.batch, FEDAVG, defense=Halved())
    torch.testing.assert_close(found.update.tensors, expected)
    assert found.trace.facts["steps"] == 4
    # The raw update follows the same visited parameters with twice the step, momentum included.
    assert found.trace.norm_ratio == pytest.approx(0.5)


def test_the_trace_compares_with_the_batch_before_it_was_changed():
    client = easy_client()
    found = train(client.task, client.batch, client.local, defense=Halved(glow=0.3))
    raw = train_locally(client.task, client.batch, client.local).tensors
    flat = torch.cat([t.flatten() for t in raw.values()])
    sent = torch.cat([t.flatten() for t in found.update.tensors.values()])
    assert found.trace.cosine == pytest.approx(torch.cosine_similarity(flat, sent, dim=0).item())
    assert found.trace.cosine < 0.9999


def test_each_release_draws_anew_and_the_first_is_the_update():
    client = easy_client()
    seen = observe_round(client.task, client.batch, client.local, level=1, defense=Noise(), secret=secret(), releases=3)
    first, second, _ = seen.observation.releases
    name = next(iter(first.tensors))
    assert torch.equal(seen.observation.update.tensors[name], first.tensors[name])
    assert not torch.equal(first.tensors[name], second.tensors[name])
    assert len(seen.traces) == 3
    with pytest.raises(InvalidValueError, match="at least once"):
        observe(client.task, client.batch, client.local, level=1, releases=0)


def test_per_example_gradients_are_those_of_one_example_each():
    client = easy_client()
    each = per_example_gradients(client.task, client.task.model, client.batch)
    for i in range(len(client.batch)):
        alone = train_locally(client.task, client.batch.select([i]), client.local).tensors
        torch.testing.assert_close({k: g[i] for k, g in each.items()}, alone)


def test_batchnorm_in_training_mode_has_no_per_example_gradients():
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).double()
    task = Task(model, cross_entropy, Images((1, 16, 16)))
    batch = easy_client().batch
    with pytest.raises(InvalidValueError, match="GroupNorm"):
        per_example_gradients(task, model.train(), batch)
    assert per_example_gradients(task, model.eval(), batch)["3.bias"].shape == (4, 4)


def test_trial_losses_are_taken_at_other_parameters_in_float64():
    client = easy_client(torch.float32)
    seen = {}

    class Peek(Halved):
        def on_gradient(self, gradient, step):
            zeros = {k: torch.zeros_like(p) for k, p in step.model.named_parameters()}
            seen["zero"], seen["here"] = step.loss(zeros), step.loss(dict(step.model.named_parameters()))
            return gradient

    train(client.task, client.batch, client.local, defense=Peek())
    assert seen["zero"].dtype == torch.float64
    assert seen["zero"].item() == pytest.approx(torch.tensor(4.0).log().item())
    loss = cross_entropy(client.task.model(client.batch["images"]), client.batch["labels"])
    assert seen["here"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_contract_holds_for_an_honest_defense_and_catches_dishonest_ones():
    check_defense(Noise)

    class Idle(Noise):
        """Does nothing."""

        def on_update(self, update, step):
            [t + 1 for t in update.values()]
            return update

    with pytest.raises(ContractError, match="does nothing"):
        check_does_something(Idle)

    class InPlace(Noise):
        """Scales in place."""

        def on_update(self, update, step):
            return {k: t.mul_(0.5) for k, t in update.items()}

    with pytest.raises(ContractError, match="wrote to"):
        check_writes_to_nothing(InPlace)

    class Predictable(Noise):
        """Draws from the global generator."""

        def on_update(self, update, step):
            return {k: t + torch.randn_like(t) for k, t in update.items()}

    with pytest.raises(ContractError, match="global seed"):
        check_secret_when_not_seeded(Predictable)


@pytest.mark.parametrize("optimiser", [Adam(iterations=1), LevenbergMarquardt(iterations=1)])
def test_matching_follows_the_view_of_an_informed_adversary(optimiser):
    """The truth solves the informed problem exactly, whatever the defense did, and does not solve the naive one."""
    client = easy_client()
    seen = observe(client.task, client.batch, client.local, level=2, secret=secret(), defense=Halved(glow=0.2))
    mask = {k: (torch.arange(p.numel()).reshape(p.shape) % 2).to(p) for k, p in seen.parameters.items()}
    hidden = {k: t * mask[k] for k, t in seen.update.tensors.items()}
    view = AdversaryView(
        knows="everything",
        update=type(seen.update)(hidden, "gradient"),
        visible=mask,
        surrogate=lambda update: {k: g / 2 for k, g in update.items()},
        transform=lambda fields: {**fields, "images": fields["images"] + 0.2},
    )
    recipe = Matching(name="test", objective=SquaredL2(), optimiser=optimiser)
    for observation, solved in ((seen.informed(view), True), (seen, False)):
        problem, _ = recipe.problem(observation)
        with simulating(observation.task.model, observation.local.mode):
            truth = problem.space.pack({"images": client.batch["images"][None]})
            misfit = problem.value(truth).item()
            rows = (problem.row(truth) - problem.target).norm().item()
        assert (misfit < 1e-20) == solved
        assert (rows < 1e-10) == solved
