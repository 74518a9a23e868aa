"""Put the truth through the step that the attacks simulate, and compare with what was received."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from invertigo.federation.causes import likely_cause
from invertigo.federation.comparison import LayerGap, flat
from invertigo.federation.randomness import SEED, RandomState
from invertigo.federation.simulated import COARSEST, Replay, Simulated, verdict
from invertigo.types import Batch, InvertigoError, Observation

__all__ = ["LayerGap", "Replay", "replay"]

SECONDS = 2.5
"""For the search of a cause: less than a twentieth of an audit of a minute."""


def replay(
    observation: Observation, truth: Batch, *, randomness: Sequence[RandomState] = (), seconds: float = SECONDS
) -> Replay:
    r"""Compare $g(\theta; x)$ of the true batch with the received update $u$, layer by layer.

    Args:
        truth: the private batch, with every field that the step reads.
        randomness: the state of the generators before each forward pass, where a tape recorded it.
        seconds: for finding out why they differ; the comparison itself takes one simulated update, or a few.

    Returns: see `Replay`. A defense's view (`Knowledge.view`) is not applied: what a defense did is a difference too.
    """
    started = time.monotonic()
    step = Simulated(observation, truth, observation.local)
    try:
        step = replace(step, truth=step.follow(truth))
        found = _judge(step, randomness, started + seconds)
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError, InvertigoError) as error:
        found = Replay(float("inf"), 0.0, 0.0, (), "impossible", _sentence(error), 0.0, 0.0)
    return replace(found, seconds=time.monotonic() - started)


def _judge(step: Simulated, randomness: Sequence[RandomState], until: float) -> Replay:
    if not torch.isfinite(flat(step.quiet)).all():
        lost = "the simulated step makes NaN or infinite values of the truth"
        return Replay(float("inf"), 0.0, 0.0, (), "impossible", lost, 0.0, 0.0)
    plain = verdict(step, step.quiet)
    if plain.status != "differs":
        return plain
    if plain.tolerance > COARSEST:
        lost = "so the step cannot be checked (a learning rate far below the size of the parameters, low precision)"
        return replace(plain, cause=f"rounding may be {plain.tolerance:.2g} of what was received, {lost}")
    one, other = (step.update(drawing=True, seed=seed) for seed in (SEED, SEED + 1))
    if not torch.equal(flat(one), flat(other)):
        return _random(step, plain, randomness)
    return replace(plain, cause=likely_cause(step, step.quiet, until))


def _random(step: Simulated, plain: Replay, randomness: Sequence[RandomState]) -> Replay:
    if randomness:
        again = verdict(step, step.update(drawing=True, randomness=randomness))
        if again.status in ("exact", "scaled"):
            note = "reproduced with the recorded random state; the attacks simulate the average of the client's draws"
            return replace(again, cause=f"{again.cause}; {note}" if again.cause else note)
    unknown = "and the recorded random state does not reproduce it" if randomness else "whose state was not recorded"
    return replace(plain, status="random", cause=f"the forward pass draws random numbers (dropout, noise), {unknown}")


def _sentence(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"the step reads {error}, which the truth does not hold"
    return f"the step could not be simulated on the truth ({type(error).__name__}: {str(error)[:200]})"
