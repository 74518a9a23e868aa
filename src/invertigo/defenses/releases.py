"""What several releases for the same batch tell together."""

from __future__ import annotations

from invertigo.attacks.releases import mean_update
from invertigo.types import Observation, Update


def released(observation: Observation) -> tuple[Update, ...]:
    """All updates that the adversary holds for this batch and model, at least one."""
    return observation.releases or (observation.update,)


def mean_release(observation: Observation) -> Update:
    """The mean of all releases: zero-mean randomness shrinks by the root of their number, what was sent stays."""
    updates = released(observation)
    return observation.update if len(updates) == 1 else mean_update(updates)
