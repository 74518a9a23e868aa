"""The contract of an attack, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from invertigo.types.errors import RequirementError
from invertigo.types.observation import Observation, Requirement
from invertigo.types.paper import Paper


@dataclass(frozen=True)
class Tick:
    """Progress of a running attack: `done` of `total` iterations, best objective so far, seconds spent and left."""

    done: int
    total: int
    objective: float
    seconds: float
    seconds_left: float


Progress = Callable[[Tick], bool | None]
"""Called now and then by a running attack; returning True asks it to stop and to return its best so far."""


@dataclass(frozen=True)
class Reconstruction:
    """What an attack rebuilt.

    `fields` are named tensors in the model's input space, the batch first. `objective` is the attack's own measure
    of fit (lower is better; 0 for an algebraic solution that reproduces the update). `trace` lists
    (iteration, objective) of the best restart. `stopped` is why it ended: `converged`, `schedule` (all iterations
    done), `budget` or `diverged`; of an algebraic attack `exact`, or `ambiguous` when it did not prove that no other
    answer explains the update. `labels_inferred` tells whether labels came from the update rather than as given.
    `certificate` is what an exact attack can prove about its answer, in a form of its own. `alternatives` are other
    answers, each as `fields` is, which the attack cannot tell from its first one.
    """

    fields: Mapping[str, Tensor]
    attack: str
    objective: float
    stopped: str
    seconds: float
    trace: tuple[tuple[int, float], ...] = ()
    labels_inferred: bool = False
    notes: tuple[str, ...] = ()
    restart_objectives: tuple[float, ...] = ()
    certificate: object | None = None
    alternatives: tuple[Mapping[str, Tensor], ...] = ()

    @property
    def finished(self) -> bool:
        """The attack ran to its own end rather than out of time or off to infinity."""
        return self.stopped in ("converged", "schedule", "exact")


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass of hyper-parameters with one method. Stateless; refuses what it cannot read."""

    name: ClassVar[str]
    paper: ClassVar[Paper]
    requires: ClassVar[frozenset[Requirement]]
    domains: ClassVar[frozenset[str]]
    exact: ClassVar[bool]

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Rebuild the private batch from the observation."""
        ...


def check_requirements(attack: Attack | type, observation: Observation) -> None:
    """Refuse, with the reason, an observation that lacks what the attack requires. Raises: RequirementError."""
    domain = observation.task.domain.name
    if domain not in attack.domains:
        raise RequirementError(f"Attack '{attack.name}' reads {', '.join(sorted(attack.domains))}, not {domain}.")
    unmet = observation.unmet(attack.requires)
    if unmet:
        raise RequirementError(
            f"Attack '{attack.name}' cannot run here: the adversary must {' and '.join(r.value for r in unmet)}. "
            "Give that in Knowledge (or raise the scenario's threat level), or choose another attack."
        )
