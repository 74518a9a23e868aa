"""The attack for those who do not want to choose one: exact first, then whatever fits the time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from invertigo.attacks.exact.linear_layer import LinearLayer
from invertigo.attacks.exact.token_solve import TokenSolve
from invertigo.attacks.matching.gauss_newton import GaussNewton
from invertigo.attacks.matching.recipes import InvertingGradients
from invertigo.attacks.registry import register
from invertigo.types import (
    INVERTIGO,
    Attack,
    Observation,
    Paper,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    check_requirements,
)

SOLVED = 1e-10
"""Squared relative residual under which Gauss–Newton has reproduced the update and nothing is left to do."""


@register
@dataclass(frozen=True, kw_only=True)
class Auto:
    """An exact attack where one applies, else Gauss–Newton in half the time, else Inverting Gradients in the rest.

    The first reconstruction that reproduces the update is returned; failing that, the last one (Inverting Gradients
    has an image prior, so what it returns degrades gracefully where the update determines little).
    """

    name: ClassVar[str] = "auto"
    paper: ClassVar[Paper] = INVERTIGO
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    seconds: float | int = 60.0
    iterations: int = 4800

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        check_requirements(self, observation)
        started = time.monotonic()
        for attack in (LinearLayer(seconds=self.seconds / 2), TokenSolve()):
            exact = _attempt(attack, observation, generator, progress)
            if exact is not None and len(exact.fields[observation.task.domain.inputs]) == observation.num_examples:
                return self._signed(exact)
        solved = GaussNewton(seconds=self.seconds / 2).reconstruct(observation, generator=generator, progress=progress)
        if solved.objective < SOLVED:
            return self._signed(solved)
        left = max(self.seconds - (time.monotonic() - started), 1.0)
        matched = InvertingGradients(iterations=self.iterations, seconds=left).reconstruct(
            observation, generator=generator, progress=progress
        )
        return self._signed(matched)

    def _signed(self, result: Reconstruction) -> Reconstruction:
        return replace(result, attack=self.name, notes=(f"by {result.attack}", *result.notes))


def _attempt(
    attack: Attack, observation: Observation, generator: torch.Generator, progress: Progress | None
) -> Reconstruction | None:
    try:
        return attack.reconstruct(observation, generator=generator, progress=progress)
    except RequirementError:
        return None
