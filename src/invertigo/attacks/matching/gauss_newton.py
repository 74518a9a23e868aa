"""Damped Gauss–Newton matching: exact images out of small and medium networks in seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.matching.engine import Matching
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.kinks import KinkFinder
from invertigo.attacks.matching.levenberg_marquardt import LevenbergMarquardt, softest_direction
from invertigo.attacks.matching.objectives import Cosine, SquaredL2
from invertigo.attacks.matching.pace import Optimum, Pace
from invertigo.attacks.matching.priors import TotalVariation
from invertigo.attacks.matching.problem import Problem
from invertigo.attacks.registry import register
from invertigo.types import INVERTIGO, Observation, Paper, Progress, Reconstruction, Requirement, check_requirements

VANISHED = 1e-12
"""Squared relative residual under which an update counts as reproduced."""
APPROACH_PRIOR = 0.01
UNIDENTIFIED = 1e-13
"""Curvature along the softest direction, relative to the mean, under which an image is not determined."""


@register
@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    r"""Solve $g(x)=g^*$ as a non-linear least-squares problem by Levenberg–Marquardt with conjugate gradients.

    Where the update determines the images, convergence is quadratic and the images come back to rounding. Networks
    with kinks (ReLU, max pooling) have no quadratic model far from the solution, so `approach` iterations of signed
    Adam on the cosine distance with a weak total-variation prior come first. When the update is reproduced, the
    softest direction of the data is measured; one that the update does not see is reported (`unidentified`), because
    then many images have the same update.

    Source: ours; the method is textbook (see `LevenbergMarquardt`).
    """

    name: ClassVar[str] = "gauss_newton"
    paper: ClassVar[Paper] = INVERTIGO
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    iterations: int = 60
    restarts: int = 1
    damping: float = 1e-2
    cg_steps: int = 1000
    start_noise: float = 0.1
    approach: int = 500
    seconds: float | None = None

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        check_requirements(self, observation)
        solver = LevenbergMarquardt(iterations=self.iterations, damping=self.damping, cg_steps=self.cg_steps)
        return Matching(
            name=self.name,
            objective=SquaredL2(),
            optimiser=_AfterFirstOrder(solver, self.approach),
            start="grey",
            start_noise=self.start_noise,
            restarts=self.restarts,
            seconds=self.seconds,
            plan=False,
        ).run(observation, generator=generator, progress=progress)


@dataclass(frozen=True)
class _AfterFirstOrder:
    """Levenberg–Marquardt, from where a first-order attack arrives when the network has kinks."""

    solver: LevenbergMarquardt
    approach: int

    @property
    def iterations(self) -> int:
        return self.solver.iterations

    def minimise(self, problem: Problem, start: Tensor, pace: Pace, generator: torch.Generator) -> Optimum:
        with KinkFinder() as kinks:
            problem.value(start)
        if kinks.found and self.approach:
            allowance = None if pace.seconds is None else pace.seconds / 3
            first = replace(problem, objective=Cosine(), priors=(TotalVariation(APPROACH_PRIOR),))
            adam = Adam(iterations=self.approach, sign="hard")
            start = adam.minimise(first, start, Pace(self.approach, seconds=allowance), generator).best
        return self._certified(problem, self.solver.minimise(problem, start, pace, generator), generator)

    def _certified(self, problem: Problem, optimum: Optimum, generator: torch.Generator) -> Optimum:
        winner = int(optimum.values.nan_to_num(torch.inf).argmin())
        if optimum.values[winner] > VANISHED or optimum.best.dtype != torch.float64:
            return optimum
        softest = softest_direction(problem, optimum.best[winner][None], generator)
        note = (
            f"unidentified: some direction in the data changes the update {softest:.0e} times as much as an average "
            "one (squared), so other images give the same update"
        )
        return replace(optimum, notes=(note,)) if softest < UNIDENTIFIED else optimum
