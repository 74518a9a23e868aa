"""The one engine under all gradient-matching attacks: observation and recipe in, reconstruction out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from invertigo.attacks.matching.chart import Chart
from invertigo.attacks.matching.initial import Start, starting_images
from invertigo.attacks.matching.naive_candidate import NAIVE_NOTE, compares, with_candidate
from invertigo.attacks.matching.noise import (
    NEGLIGIBLE,
    by_discrepancy,
    by_replay,
    inverse_variances,
    multipliers,
    spread,
)
from invertigo.attacks.matching.objectives import Nothing, Objective, layer_weights
from invertigo.attacks.matching.pace import Optimum, Pace
from invertigo.attacks.matching.priors import Prior
from invertigo.attacks.matching.problem import Problem
from invertigo.attacks.matching.soft_labels import inferred as told
from invertigo.attacks.matching.soft_labels import soft_form
from invertigo.attacks.matching.space import SOFT_LABELS, Field, Space
from invertigo.federation.functional import simulating
from invertigo.types import Observation, Progress, Reconstruction, RequirementError

Labels = Literal["infer", "joint"]


@runtime_checkable
class Optimiser(Protocol):
    """Minimises a `Problem` over flat candidates; see `first_order`, `lbfgs`, `levenberg_marquardt`."""

    @property
    def iterations(self) -> int:
        """The longest it runs."""
        ...

    def minimise(self, problem: Problem, start: Tensor, pace: Pace, generator: torch.Generator) -> Optimum:
        """Run from `start` (restart, unknown)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What a gradient-matching attack consists of. A recipe fills this in with a paper's choices.

    `labels`: given labels are used when the adversary knows them; otherwise they are inferred from the update
    ("infer"), or optimised together with the images ("joint"). `restarts` run as one batch; the one whose update
    comes nearest to the observed one is returned (the truth plays no part). `seconds` is an allowance that the schedule
    is fitted into. `prior_only` leaves the matching term out: the no-information baseline of this very recipe.
    `chart` makes batches out of unknowns of another form, for data that are not free tensors between two bounds.
    """

    name: str
    objective: Objective
    optimiser: Optimiser
    priors: Sequence[Prior] = ()
    start: Start = "normal"
    start_noise: float = 0.1
    given: Tensor | None = None
    labels: Labels = "infer"
    restarts: int = 1
    weights: str = "equal"
    seconds: float | None = None
    plan: bool = True
    prior_only: bool = False
    compile: bool = False
    chart: Chart | None = None

    def run(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Reconstruct the batch behind `observation`; see `types.Attack`.

        Who knows the defense also tries the attack of who does not, from the same start, and takes the candidate whose
        update, sent through the defense, comes nearest to what was received.
        """
        (problem, inferred), before = self.problem(observation), generator.get_state()
        doubted = compares(problem)
        problem, start = spread(problem, self.starting_point(problem, generator))
        share = len(start) / (len(start) + self.restarts) if doubted else 1.0
        pace = self._pace(progress, share)
        with simulating(observation.task.model, observation.local.mode), threads_for(problem):
            optimum = self.optimiser.minimise(problem, start, pace, generator)
            if doubted and not pace.interrupted:
                generator.set_state(before)
                problem, optimum = self._with_naive(problem, optimum, self._pace(progress, 1 - share), generator)
            winner = self._winner(problem, optimum)
        notes = (NAIVE_NOTE,) if winner == len(start) else ()
        return self._reconstruction(problem, replace(optimum, notes=(*optimum.notes, *notes)), winner, pace, inferred)

    def _with_naive(
        self, problem: Problem, optimum: Optimum, pace: Pace, generator: torch.Generator
    ) -> tuple[Problem, Optimum]:
        """The problem and its candidates, with what the naive attack finds as the last one."""
        naive, _ = self.problem(problem.observation.naive())
        found = self.optimiser.minimise(naive, self.starting_point(naive, generator), pace, generator)
        best = self._winner(naive, found)
        return with_candidate(problem, optimum, naive.space, found.best[best : best + 1])

    def _pace(self, progress: Progress | None, share: float) -> Pace:
        seconds = None if self.seconds is None else share * self.seconds
        return Pace(self.optimiser.iterations, progress, seconds, self.plan)

    def problem(self, observation: Observation) -> tuple[Problem, bool]:
        """The optimisation problem, and whether its labels were inferred rather than given."""
        labels, inferred = self._labels(observation)
        count = len(labels) if labels is not None else observation.num_examples
        assert count is not None
        domain, view = observation.task.domain, observation.knowledge.view
        if self.chart is not None:
            fields = dict(self.chart.unknowns)
        else:
            shapes = domain.example_shapes().items()
            fields = {name: Field((count, *shape), *domain.bounds(name)) for name, shape in shapes}
        form = soft_form(observation) if labels is None else None
        if form is not None:
            fields[SOFT_LABELS] = Field((count, *form.unknowns))
        if view is not None and view.unknowns:
            fields |= {name: Field(shape) for name, shape in view.unknowns.items()}
        weights = layer_weights(self.weights, observation.parameters, view.visible if view else None)
        if view is not None:
            weights = inverse_variances(weights, view.noise_std, observation.update.tensors, observation.parameters)
        return Problem(
            observation,
            Space(fields),
            Nothing() if self.prior_only else self.objective,
            tuple(self.priors),
            labels,
            weights,
            count,
            self.compile,
            self.chart,
            form,
        ), inferred

    def starting_point(self, problem: Problem, generator: torch.Generator) -> Tensor:
        """Flat starting candidates (restart, unknown); soft labels start as standard normal logits."""
        like = next(iter(problem.observation.parameters.values()))
        named = {}
        for name, field in problem.space.fields.items():
            shape = (self.restarts, *field.shape)
            if name == SOFT_LABELS or field.low is None or field.high is None:
                named[name] = torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype)
                continue
            named[name] = starting_images(
                self.start, shape, field.low.to(like), field.high.to(like),
                generator=generator, noise=self.start_noise, given=self.given,
            )  # fmt: skip
        return problem.space.pack({name: tensor.to(like) for name, tensor in named.items()})

    def _labels(self, observation: Observation) -> tuple[Tensor | None, bool]:
        if observation.knowledge.labels is not None:
            return observation.knowledge.labels, False
        if self.labels == "joint" or (guess := told(observation)) is None:
            if observation.num_examples is None:
                raise RequirementError(
                    f"Attack '{self.name}' optimises the labels together with the images and so must know how many "
                    "examples the update was computed on; give Knowledge(num_examples=...)."
                )
            return None, True
        return guess.labels, True

    def _winner(self, problem: Problem, optimum: Optimum) -> int:
        """The restart whose update is nearest to the observed one; priors would favour the smoothest picture."""
        values, view = optimum.values, problem.observation.knowledge.view
        if len(values) > 1 and view is not None and view.replay is not None and not self.prior_only:
            return by_replay(problem, optimum.best)
        if len(values) > 1 and self.priors and not self.prior_only:
            values = replace(problem, priors=()).value(optimum.best)
        factors = multipliers(problem.priors)
        if factors is not None:
            return by_discrepancy(problem, values, factors)
        return int(torch.where(values.isfinite(), values, torch.inf).argmin())

    def _reconstruction(
        self, problem: Problem, optimum: Optimum, winner: int, pace: Pace, inferred: bool
    ) -> Reconstruction:
        fields = problem.fields(optimum.best)
        view = problem.observation.knowledge.view
        drawn = (view.unknowns if view is not None else None) or {}
        target = problem.observation.task.domain.target
        images = {k: tensor[winner].detach() for k, tensor in fields.items() if k != target and k not in drawn}
        images = images if self.chart is None else dict(self.chart.settled(images))
        labels = problem.labels
        if labels is None:
            assert problem.targets is not None
            labels = problem.targets.settled(fields[target][winner])
        return Reconstruction(
            fields={**images, target: labels.detach()},
            attack=self.name,
            objective=optimum.values[winner].item(),
            stopped=optimum.stopped,
            seconds=pace.elapsed,
            trace=tuple(pace.trace),
            labels_inferred=inferred,
            notes=(*optimum.notes, *_weight_note(problem, winner)),
            restart_objectives=tuple(optimum.values.tolist()),
        )


def _weight_note(problem: Problem, winner: int) -> tuple[str, ...]:
    factors = multipliers(problem.priors)
    if factors is None:
        return ()
    share = f"{problem.noise_share:.1%} of the update's energy is known to be noise"
    why = "entries of the update are known to be missing" if problem.noise_share < NEGLIGIBLE else share
    return (f"the prior was weighed {factors[winner]:g} times, as {why}",)


@contextmanager
def threads_for(problem: Problem) -> Iterator[None]:
    """One thread for small networks on a processor, where handing work around costs more than the work itself."""
    before = torch.get_num_threads()
    try:
        if not problem.large:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
