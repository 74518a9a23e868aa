"""Attacks by name, and the one call that runs one."""

from __future__ import annotations

from typing import Any

import torch

from invertigo.types import (
    Attack,
    Observation,
    Progress,
    Reconstruction,
    Registry,
)

registry: Registry[type[Attack]] = Registry("attacks", "attack")
register = registry.enter


def make(attack: str | Attack, **hyperparameters: Any) -> Attack:
    """The attack of that name with these hyper-parameters; an attack object is passed through.

    Raises: UnknownNameError for the name, ConfigurationError for a hyper-parameter that the attack does not have.
    """
    return registry.make(attack, **hyperparameters)


def reconstruct(
    observation: Observation,
    attack: str | Attack = "auto",
    *,
    seed: int = 0,
    progress: Progress | None = None,
    **hyperparameters: Any,
) -> Reconstruction:
    """Rebuild the private batch behind an observed update.

    Args:
        attack: a registered name, with `hyperparameters` beside it, or an attack object.
        seed: of everything the attack draws; the same seed on the same machine gives the same bits.
        progress: called now and then; returning True asks the attack to stop and return its best so far.

    Raises: RequirementError when the observation lacks what the attack needs.
    """
    chosen = make(attack, **hyperparameters)
    device = next(iter(observation.update.tensors.values())).device
    generator = torch.Generator(device).manual_seed(seed)
    return chosen.reconstruct(observation, generator=generator, progress=progress)
