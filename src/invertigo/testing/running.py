"""How the checks run an attack: a class or an instance, one seed, one case."""

from __future__ import annotations

from typing import Any

import torch

from invertigo.testing.cases import Case, easy_case
from invertigo.types import Observation, Progress, Reconstruction


def run(attack: Any, observation: Observation, progress: Progress | None = None) -> Reconstruction:
    """Run the attack with the checks' one seed, on the device of the parameters."""
    device = next(iter(observation.parameters.values())).device
    generator = torch.Generator(device).manual_seed(0)
    return attack.reconstruct(observation, generator=generator, progress=progress)


def kind_of(attack: Any) -> Any:
    """The class of an attack given as class or instance."""
    return attack if isinstance(attack, type) else type(attack)


def instance_of(attack: Any) -> Any:
    """An instance of an attack given as class (with its defaults) or instance."""
    return attack() if isinstance(attack, type) else attack


def case_of(attack: Any, case: Case | None) -> Case:
    """The given case, or the easy one."""
    return case or easy_case(attack)
