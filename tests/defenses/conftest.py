"""A small client, what it releases under a defense, and how well it is rebuilt by who knows the defense and who not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from invertigo.attacks import reconstruct
from invertigo.federation import observe_round
from invertigo.federation.observe import Round
from invertigo.testing.defenses import easy_client
from invertigo.types import Batch, Defense, LocalTraining, Reconstruction, Task, ThreatLevel

Releases = Callable[..., tuple[Task, Batch, Round]]


@pytest.fixture(scope="session")
def released() -> Releases:
    """`released(defense, count=2, seed=0)`: the task that was trained, the private batch, and the round."""

    def run(
        defense: Defense | None,
        *,
        count: int = 2,
        seed: int | None = 0,
        local: LocalTraining | None = None,
        model: nn.Module | None = None,
        releases: int = 1,
    ) -> tuple[Task, Batch, Round]:
        client = easy_client()
        batch = client.batch.select(slice(0, count))
        task = client.task if model is None else Task(model, client.task.loss, client.task.domain, 4)
        if defense is not None:
            task = defense.prepare(task, client.public, generator=torch.Generator().manual_seed(7))
        secret = None if seed is None else torch.Generator().manual_seed(seed)
        seen = observe_round(
            task, batch, local or LocalTraining(), level=ThreatLevel.STATISTICS, defense=defense, secret=secret,
            releases=releases, generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        return task, batch, seen

    return run


@pytest.fixture(scope="session")
def attacked(released: Releases) -> Callable[..., tuple[float, float]]:
    """`attacked(defense, count=1)`: mean PSNR of who does not know the defense, and of who does."""

    def run(defense: Defense, *, count: int = 1, iterations: int = 120, seed: int = 0) -> tuple[float, float]:
        task, batch, seen = released(defense, count=count, seed=seed)
        observation = seen.observation
        scores = []
        for one in (observation, observation.informed(defense.adversary_view(observation))):
            rebuilt = reconstruct(one, "inverting_gradients", iterations=iterations, total_variation=1e-3)
            scores.append(task.domain.score(batch, rebuilt.fields).mean("psnr"))
        return scores[0], scores[1]

    return run


@pytest.fixture(scope="session")
def client() -> tuple[Task, Batch]:
    """The small client's task and its four private examples."""
    ready = easy_client()
    return ready.task, ready.batch


@pytest.fixture(scope="session")
def observed(released: Releases) -> Callable[..., tuple[Round, dict[str, Tensor]]]:
    """`observed(defense, examples=4, releases=1)`: the round, and the update that it would have been without."""

    def run(defense: Defense | None, *, examples: int = 4, releases: int = 1) -> tuple[Round, dict[str, Tensor]]:
        raw = released(None, count=examples)[2].observation.update.tensors
        return released(defense, count=examples, releases=releases)[2], dict(raw)

    return run


@pytest.fixture(scope="session")
def sent_and_raw(observed: Callable[..., tuple[Round, dict[str, Tensor]]]) -> Callable[..., tuple]:
    """`sent_and_raw(defense)`: the release, the update that it would have been without, and the trace."""

    def run(defense: Defense) -> tuple:
        seen, raw = observed(defense)
        return seen.observation.update.tensors, raw, seen.traces[0]

    return run


@pytest.fixture(scope="session")
def psnr(released: Releases) -> Callable[[Reconstruction], float]:
    """`psnr(reconstruction)` of the small client's first example."""
    task, batch, _ = released(None, count=1)
    return lambda rebuilt: task.domain.score(batch, rebuilt.fields).mean("psnr")
