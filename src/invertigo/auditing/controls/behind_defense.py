"""The replay of an update that was handed over from behind a defense: the client is simulated with the defense on."""

from __future__ import annotations

import time
from statistics import fmean, pstdev

import torch

from invertigo.auditing.case import Case
from invertigo.auditing.trial import generator_for
from invertigo.federation.client import train
from invertigo.federation.replay import Replay
from invertigo.types import MismatchError, Observation

TOLERANCE = {torch.float64: 1e-9}
"""Relative gap of two ways to compute one release, by dtype; others 1e-4."""
DRAWS = 6
"""Simulated releases that show how far the defense scatters."""
BLURRED = 0.02
"""Scatter of the fitted length, in parts of the update, beyond which a wrong step could hide behind the defense."""


def behind_defense(case: Case, seen: Observation, seed: int) -> Replay:
    r"""Compare what was received with releases that a simulated client makes of the truth.

    A defense without draws must give the received update to rounding. One with draws is held to two figures: the
    length $\langle r, g\rangle / \lVert g\rVert^2$ along the undefended update $g$, and the distance from other
    releases; both must look like those of simulated releases.

    Raises: MismatchError when the defense scatters so far that a wrong step could not be told from a right one.
    """
    started = time.monotonic()
    received = seen.releases[0] if seen.releases else seen.update
    target = _row(received.tensors)
    raw = _row(train(case.task, case.truth, case.local, generator=generator_for(seed, "client")).update.tensors)  # type: ignore[arg-type]
    drawn = [_release(case, seed, number) for number in range(DRAWS)]
    tolerance = max(TOLERANCE.get(t.dtype, 1e-4) for t in received.tensors.values())
    gap = min(float((target - one).norm() / target.norm().clamp_min(1e-300)) for one in drawn)
    cosine = float(torch.cosine_similarity(target, raw, dim=0))
    if torch.equal(drawn[0], drawn[1]):
        status = "exact" if gap <= tolerance else "differs"
        return Replay(gap, cosine, 1.0, (), status, "", time.monotonic() - started, tolerance)
    lengths = [_along(one, raw) for one in drawn]
    spread, apart = pstdev(lengths), [float((one - drawn[0]).norm()) for one in drawn[1:]]
    if spread > BLURRED * abs(fmean(lengths)):
        raise MismatchError(
            "The defense scatters its releases so far that a wrong step could not be told from the client's own"
        )
    near = min(float((target - one).norm()) for one in drawn) <= 1.2 * max(apart)
    alike = abs(_along(target, raw) - fmean(lengths)) <= 5 * spread + tolerance
    status = "exact" if near and alike else "differs"
    cause = "" if status == "exact" else "it lies outside what the defense makes of this step"
    return Replay(gap, cosine, 1.0, (), status, cause, time.monotonic() - started, tolerance)


def _release(case: Case, seed: int, number: int) -> torch.Tensor:
    assert case.truth is not None
    secret = generator_for(seed, "replay", number, device=next(case.task.model.parameters()).device)
    client = generator_for(seed, "client")
    return _row(
        train(case.task, case.truth, case.local, generator=client, defense=case.defense, secret=secret).update.tensors
    )


def _along(release: torch.Tensor, raw: torch.Tensor) -> float:
    return float(release @ raw / (raw @ raw).clamp_min(1e-300))


def _row(tensors) -> torch.Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors.values()])
