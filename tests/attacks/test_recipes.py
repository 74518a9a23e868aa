"""Published attacks: what they reach, what they return, and the defects of others that they must not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from invertigo.attacks import DLG, IDLG, Auto, GaussNewton, InvertingGradients, SeeThroughGradients
from invertigo.attacks.matching.engine import Matching
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.objectives import Cosine, SquaredL2
from invertigo.attacks.matching.pace import Pace
from invertigo.attacks.matching.priors import GroupConsistency, TotalVariation
from invertigo.federation.functional import simulating
from invertigo.types import InvalidValueError, LocalTraining, Observation, Requirement, RequirementError, Tick

Watched = Callable[..., tuple]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def psnr(observation: Observation, truth: object, result: object) -> list[float]:
    return observation.task.domain.score(truth, result.fields).per_example["psnr"].tolist()  # type: ignore[attr-defined, arg-type]


def test_idlg_is_exact_on_a_smooth_network(watched: Watched) -> None:
    observation, truth = watched("lenet", [0])
    result = IDLG(iterations=300).reconstruct(observation, generator=seeded())
    assert result.stopped == "converged"
    assert psnr(observation, truth, result)[0] > 100


def test_dlg_returns_the_labels_it_optimised(watched: Watched) -> None:
    """Not those of its random start: with the right image only the right label has no residual."""
    observation, truth = watched("lenet", [150])
    result = DLG(iterations=300, restarts=4).reconstruct(observation, generator=seeded(150))
    assert psnr(observation, truth, result)[0] > 40
    assert result.labels_inferred
    assert result.fields["labels"].tolist() == truth["labels"].tolist()


def test_inverting_gradients_beats_every_guess_on_faces(watched: Watched) -> None:
    observation, truth = watched("lenet", [0])
    result = InvertingGradients(iterations=300, total_variation=0.01).reconstruct(observation, generator=seeded())
    grey = observation.task.domain.score(truth, {"images": torch.full_like(truth["images"], 0.5)})
    assert psnr(observation, truth, result)[0] > grey.per_example["psnr"].item() + 3


def test_the_returned_point_has_the_returned_objective(watched: Watched) -> None:
    """The best iterate is stored with its own value, not with that of the step before."""
    observation, _ = watched("lenet", [0, 150], level=2)
    recipe = Matching(
        name="t", objective=Cosine(), optimiser=Adam(iterations=40, sign="hard"), priors=(TotalVariation(0.1),),
        restarts=3,
    )  # fmt: skip
    result = recipe.run(observation, generator=seeded())
    problem, _ = recipe.problem(observation)
    with simulating(observation.task.model, observation.local.mode):
        value = problem.value(problem.space.pack({"images": result.fields["images"][None]}))
    assert value.item() == pytest.approx(result.objective, rel=1e-9)
    assert result.objective in result.restart_objectives
    assert len(result.restart_objectives) == 3


def test_the_winner_is_the_restart_whose_update_is_nearest(watched: Watched) -> None:
    """Not the smoothest one: with a strong prior the two differ."""
    observation, _ = watched("lenet", [0], level=2)
    recipe = Matching(
        name="t", objective=Cosine(), optimiser=Adam(iterations=15, sign="hard"), priors=(TotalVariation(3.0),),
        restarts=6, start="uniform",
    )  # fmt: skip
    problem, _ = recipe.problem(observation)
    bare = replace(problem, priors=())
    with simulating(observation.task.model, "train"):
        optimum = recipe.optimiser.minimise(problem, recipe.starting_point(problem, seeded()), Pace(15), seeded())
        nearest = int(bare.value(optimum.best).argmin())
    assert nearest != int(optimum.values.argmin()), "the case must tell the two rules apart"
    images = recipe.run(observation, generator=seeded()).fields["images"]
    assert torch.equal(images, problem.space.unpack(optimum.best)["images"][nearest])


def test_the_winner_is_chosen_without_the_truth(watched: Watched) -> None:
    """An observation has no field that holds the batch, and the objective alone orders the restarts."""
    observation, truth = watched("lenet", [0], level=2)
    result = InvertingGradients(iterations=60, restarts=4).reconstruct(observation, generator=seeded())
    doctored = {k: v.clone() for k, v in truth.fields.items()}
    doctored["images"].zero_()
    again = InvertingGradients(iterations=60, restarts=4).reconstruct(observation, generator=seeded())
    assert torch.equal(result.fields["images"], again.fields["images"])
    assert not any("image" in name for name in vars(observation) | vars(observation.knowledge))


def test_prior_only_reads_nothing_from_the_update(watched: Watched) -> None:
    attack = InvertingGradients(iterations=30, prior_only=True)
    results = [attack.reconstruct(watched("lenet", [i], level=2)[0], generator=seeded()) for i in (0, 5)]
    assert torch.equal(results[0].fields["images"], results[1].fields["images"])
    informed = replace(attack, prior_only=False).reconstruct(watched("lenet", [0], level=2)[0], generator=seeded())
    assert not torch.equal(results[0].fields["images"], informed.fields["images"])


def test_group_consistency_pulls_restarts_together(watched: Watched) -> None:
    observation, _ = watched("lenet", [0], level=2)

    def spread(weight: float, model_is_large: bool = False) -> float:
        recipe = Matching(
            name="t", objective=SquaredL2(), optimiser=Adam(iterations=60), priors=(GroupConsistency(weight),),
            restarts=3,
        )  # fmt: skip
        problem, _ = recipe.problem(observation)
        if model_is_large:
            problem.__dict__["large"] = True
        start = recipe.starting_point(problem, seeded())
        with simulating(observation.task.model, "train"):
            return recipe.optimiser.minimise(problem, start, Pace(60), seeded()).best.var(0).mean().item()

    assert spread(30.0) < 0.5 * spread(0.0)
    assert spread(30.0, model_is_large=True) == pytest.approx(spread(30.0), rel=1e-6)


def test_see_through_gradients_needs_the_batch_statistics(watched: Watched) -> None:
    options = {"depth": 8, "width": 4}
    observation, _ = watched("resnet", [0, 150], **options)
    with pytest.raises(RequirementError, match="BatchNorm statistics"):
        SeeThroughGradients().reconstruct(observation, generator=seeded())
    observation, truth = watched("resnet", [0, 150], level=2, dtype=torch.float32, **options)
    result = SeeThroughGradients(iterations=30, restarts=2).reconstruct(observation, generator=seeded())
    assert result.objective < result.trace[0][1]
    assert result.fields["images"].shape == truth["images"].shape


def test_see_through_gradients_without_its_prior_on_statistics_needs_none(watched: Watched) -> None:
    observation, truth = watched("lenet", [0], dtype=torch.float32)
    result = SeeThroughGradients(iterations=150, restarts=1, batch_statistics=0.0, gradient_scale=1.0).reconstruct(
        observation, generator=seeded()
    )
    assert min(psnr(observation, truth, result)) > 15
    assert Requirement.BATCH_STATISTICS in SeeThroughGradients.requires


def test_federated_averaging_is_unrolled(watched: Watched) -> None:
    local = LocalTraining(sends="difference", epochs=2, batch_size=1, learning_rate=0.1, momentum=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(625, 16), nn.Sigmoid(), nn.Linear(16, 2))
    observation, truth = watched(model, [0, 150], local=local)
    observation = replace(observation, knowledge=replace(observation.knowledge, labels=truth["labels"]))
    result = GaussNewton(iterations=25).reconstruct(observation, generator=seeded())
    assert min(psnr(observation, truth, result)) > 60


def test_an_attack_stops_when_asked_and_returns_its_best(watched: Watched) -> None:
    observation, _ = watched("lenet", [0])
    ticks: list[Tick] = []
    result = InvertingGradients(iterations=5000).reconstruct(
        observation, generator=seeded(), progress=lambda tick: ticks.append(tick) or len(ticks) >= 2
    )
    assert result.stopped == "budget"
    assert len(ticks) == 2
    assert ticks[-1].seconds_left > 0
    assert result.objective < 0.5


def test_a_schedule_is_fitted_into_the_time_allowed(watched: Watched) -> None:
    observation, _ = watched("lenet", [0])
    result = InvertingGradients(iterations=100_000, seconds=1.5).reconstruct(observation, generator=seeded())
    assert result.stopped in ("schedule", "budget")
    assert result.seconds < 6


def test_patience_ends_a_run_that_no_longer_improves(watched: Watched) -> None:
    observation, _ = watched("lenet", [0])
    result = InvertingGradients(iterations=1000, learning_rate=1e-12, patience=60).reconstruct(
        observation, generator=seeded()
    )
    assert result.stopped == "converged"
    assert result.trace[-1][0] < 300


class Branching(nn.Module):
    """A user's model with a decision that depends on the data: it cannot be batched over restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(625, 20), nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.sigmoid(self.first(x.flatten(1)))
        return self.second(hidden * 2) if hidden.mean() > 0.9 else self.second(hidden)


def test_models_that_cannot_be_batched_run_one_restart_at_a_time(watched: Watched) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Branching()
    observation, truth = watched(model, [0])
    result = IDLG(iterations=200, restarts=2).reconstruct(observation, generator=seeded())
    assert len(result.restart_objectives) == 2
    assert psnr(observation, truth, result)[0] > 30


def test_joint_labels_need_the_number_of_classes(watched: Watched) -> None:
    observation, _ = watched("lenet", [0])
    blind = replace(observation, task=replace(observation.task, num_classes=None))
    with pytest.raises(RequirementError, match="num_classes"):
        DLG(iterations=5).reconstruct(blind, generator=seeded())


def test_a_start_of_the_wrong_shape_is_refused(watched: Watched) -> None:
    observation, _ = watched("lenet", [0])
    recipe = Matching(
        name="t", objective=Cosine(), optimiser=Adam(iterations=5), start="given", given=torch.zeros(1, 3, 4, 4)
    )
    with pytest.raises(InvalidValueError, match=r"\(1, 3, 4, 4\)"):
        recipe.run(observation, generator=seeded())


@pytest.mark.parametrize("start", ["normal", "uniform", "grey", "patterned"])
def test_starts_lie_where_they_say(watched: Watched, start: str) -> None:
    observation, _ = watched("lenet", [0, 1], level=2)
    recipe = Matching(name="t", objective=Cosine(), optimiser=Adam(iterations=5), start=start, restarts=2)  # type: ignore[arg-type]
    problem, _ = recipe.problem(observation)
    images = problem.space.unpack(recipe.starting_point(problem, seeded()))["images"]
    assert images.shape == (2, 2, 1, 25, 25)
    assert not torch.equal(images[0], images[1])
    if start in ("uniform", "patterned"):
        assert 0 <= images.min() < images.max() <= 1
    if start == "patterned":
        assert torch.equal(images[..., :4, :4], images[..., 4:8, 4:8])
    if start == "grey":
        assert images.mean().item() == pytest.approx(0.5, abs=0.02)


def test_auto_takes_the_exact_attack_where_there_is_one(watched: Watched) -> None:
    observation, truth = watched("mlp", [0, 150])
    result = Auto(seconds=20).reconstruct(observation, generator=seeded())
    assert result.notes[0] == "by linear_layer"
    assert min(psnr(observation, truth, result)) > 100


def test_auto_falls_back_to_matching(watched: Watched) -> None:
    observation, truth = watched("lenet", [0])
    result = Auto(seconds=30).reconstruct(observation, generator=seeded())
    assert result.notes[0] == "by gauss_newton"
    assert psnr(observation, truth, result)[0] > 100


@pytest.mark.slow
def test_the_compiled_step_is_the_same_step(watched: Watched) -> None:
    observation, _ = watched("lenet", [0])
    plain, compiled = (
        InvertingGradients(iterations=20, restarts=2, compile=c).reconstruct(observation, generator=seeded())
        for c in (False, True)
    )
    assert compiled.objective == pytest.approx(plain.objective, rel=1e-6)
