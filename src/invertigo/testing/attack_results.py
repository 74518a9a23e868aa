"""What an attack gives back."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from invertigo.testing import state
from invertigo.testing.cases import Case
from invertigo.testing.contract import demand
from invertigo.testing.running import case_of, instance_of, run
from invertigo.types import Requirement, Tick

STOPPED = frozenset({"converged", "schedule", "exact", "budget", "diverged"})


def check_result(attack: Any, case: Case | None = None) -> None:
    """The reconstruction holds finite tensors with the shape, dtype and device of the model's input, and its story."""
    attack, case = instance_of(attack), case_of(attack, case)
    result = run(attack, case.observation)
    domain, like = case.observation.task.domain, next(iter(case.observation.parameters.values()))
    for name, shape in domain.example_shapes().items():
        demand(name in result.fields, f"The reconstruction lacks the field '{name}'; it holds {[*result.fields]}.")
        rebuilt, wanted = result.fields[name], (len(case.truth), *shape)
        fits = tuple(rebuilt.shape[1:]) == wanted[1:] and _as_many_as_due(attack, len(rebuilt), len(case.truth))
        demand(fits, f"'{name}' is {tuple(rebuilt.shape)}, but the batch is {wanted}.")
        demand(torch.isfinite(rebuilt).all(), f"'{name}' holds NaN or Inf.")
        demand(not rebuilt.requires_grad, f"'{name}' still requires a gradient; detach it.")
        if rebuilt.is_floating_point():
            found, wanted = (rebuilt.dtype, rebuilt.device), (like.dtype, like.device)
            demand(found == wanted, f"'{name}' is {found}, but the model is {wanted}.")
    demand(result.attack == attack.name, f"The reconstruction is signed '{result.attack}', not '{attack.name}'.")
    demand(result.stopped in STOPPED, f"stopped is {result.stopped!r}; it must be one of {sorted(STOPPED)}.")
    demand(result.seconds >= 0 and result.objective == result.objective, "seconds or objective makes no sense.")
    iterations = [iteration for iteration, _ in result.trace]
    demand(iterations == sorted(iterations), f"The trace must go forward, but its iterations are {iterations}.")


def _as_many_as_due(attack: Any, rebuilt: int, private: int) -> bool:
    """All examples; the attack of a malicious server may fish for some of them."""
    return 1 <= rebuilt <= private if Requirement.CRAFTED_MODEL in attack.requires else rebuilt == private


def check_beats_mid_grey(attack: Any, case: Case | None = None) -> None:
    """On an easy case the reconstruction scores better than the middle of the range, which reads no update at all."""
    case = case_of(attack, case)
    domain, truth = case.observation.task.domain, case.truth
    result = run(instance_of(attack), case.observation)
    grey = {}
    for name in domain.example_shapes():
        low, high = domain.bounds(name)
        grey[name] = ((low + high) / 2).to(truth[name]).expand_as(result.fields[name]).clone()
    headline = domain.metrics[0]
    ours, theirs = (domain.score(truth, fields).mean(headline.name) for fields in (result.fields, grey))
    better = ours > theirs if headline.privacy_loss else ours < theirs
    demand(better, f"{headline.label} {ours:.2f} is no better than the {theirs:.2f} of a mid-grey guess.")


def check_reproducible(attack: Any, case: Case | None = None) -> None:
    """The generator decides everything: same seed, same bits, whatever ran before and whatever the global seed is."""
    attack, case = instance_of(attack), case_of(attack, case)
    first = run(attack, case.observation)
    again = run(attack, case.observation)
    fresh = run(dataclasses.replace(attack), case.observation)
    with torch.random.fork_rng():
        torch.rand(7)  # move the global random state on
        elsewhere = run(attack, case.observation)
    for story, other in (("called again", again), ("built anew", fresh), ("with another global state", elsewhere)):
        moved = state.changes(first.fields, other.fields)
        demand(not moved, f"Attack '{attack.name}' gives another {moved} for the same generator when {story}.")


def check_stops_when_asked(attack: Any, case: Case | None = None) -> None:
    """When `progress` returns True the attack stops there, and still returns a whole reconstruction."""
    attack, case = instance_of(attack), case_of(attack, case)
    ticks: list[Tick] = []
    result = run(attack, case.observation, progress=lambda tick: ticks.append(tick) or True)
    demand(
        len(ticks) <= 1, f"Attack '{attack.name}' was asked to stop and reported progress {len(ticks) - 1} times more."
    )
    for name in case.observation.task.domain.example_shapes():
        demand(name in result.fields, f"A stopped attack returns its best so far, but '{name}' is missing.")
