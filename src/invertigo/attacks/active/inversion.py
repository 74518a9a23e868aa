"""A malicious server that made the gradient speak of few examples, and leaves the rest to an ordinary attack."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from invertigo.types import Attack, Observation, Progress, Reconstruction


def inverted(
    inner: Attack,
    observation: Observation,
    *,
    name: str,
    note: str,
    started: float,
    generator: torch.Generator,
    progress: Progress | None,
) -> Reconstruction:
    """What `inner` makes of the observation, in the `name` of the attack that planted for it."""
    found = inner.reconstruct(observation, generator=generator, progress=progress)
    return replace(
        found,
        attack=name,
        seconds=time.perf_counter() - started,
        labels_inferred=True,
        notes=(note, *found.notes),
    )
