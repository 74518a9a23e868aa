"""Observations of small clients on bundled faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo import data, models
from invertigo.domains import Images
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, Observation, Task, ThreatLevel

Seen = tuple[Observation, Batch]


@pytest.fixture(scope="session")
def watched() -> Callable[..., Seen]:
    """(observation, truth) of one client training on faces: `watched("lenet", [0], activation="gelu")`."""
    faces = data.load("faces")

    def build(
        model: str | nn.Module,
        indices: Sequence[int],
        *,
        local: LocalTraining | None = None,
        level: int = 1,
        dtype: torch.dtype = torch.float64,
        **options: object,
    ) -> Seen:
        shape = tuple(faces.images.shape[1:])
        if isinstance(model, str):
            made = models.build(
                model, input_shape=shape, num_classes=2, generator=torch.Generator().manual_seed(0), **options
            )
        else:
            made = model
        truth = faces.batch(list(indices)).to(dtype=dtype)
        task = Task(made.to(dtype), F.cross_entropy, Images(shape), num_classes=2)
        return observe(task, truth, local or LocalTraining(), level=ThreatLevel(level)), truth

    return build
