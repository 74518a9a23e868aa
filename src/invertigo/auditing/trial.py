"""One attack on one observation: run it in isolation and inside its time, and note what came of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from invertigo.auditing.portfolio import Entry
from invertigo.federation.functional import functional_update, simulating
from invertigo.types import (
    AdversaryView,
    Domain,
    InvertigoError,
    Observation,
    Progress,
    Reconstruction,
    RequirementError,
    Tick,
    check_requirements,
)


@dataclass(frozen=True)
class Trial:
    """What became of one attack: a reconstruction, or the reason why there is none."""

    reconstruction: Reconstruction | None
    status: str
    reason: str = ""
    seconds: float = 0.0
    shortened: bool = False
    residual: float | None = None
    """Relative distance of the update that the reconstruction would have caused from the observed one."""
    residual_up_to_scale: float | None = None
    """The same distance after the best factor, of the reconstruction brought into the range of the data."""
    iterations: int | None = None
    """Iterations carried out, as far as the attack told."""


@dataclass
class Deadline:
    """A progress callback that asks to stop after `seconds`, and remembers the schedule that the attack settled on."""

    seconds: float
    forward: Progress | None = None
    ticks: list[Tick] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False
    """It asked the attack to stop, whatever the attack says of itself afterwards."""

    def __call__(self, tick: Tick) -> bool:
        """True when the time is over, or when whoever watches asked to stop."""
        self.ticks = [self.ticks[0], tick] if self.ticks else [tick]
        asked = self.forward(tick) if self.forward is not None else False
        self.stopped = self.stopped or bool(asked) or time.monotonic() - self.started > self.seconds
        return self.stopped


def generator_for(seed: int, *parts: Any, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for each part of an audit, so that leaving one attack out does not change the others."""
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") % 2**63)


def attempt(
    entry: Entry, observation: Observation, *, seed: int, seconds: float, progress: Progress | None = None
) -> Trial:
    """Run one attack for at most about `seconds`. A refusal and a crash become a `Trial`; Ctrl-C passes through."""
    attack, deadline = entry.attack, Deadline(seconds, progress)
    if not entry.pinned and "seconds" in {f.name for f in fields(attack)}:  # type: ignore[arg-type]
        attack = replace(attack, seconds=seconds)  # type: ignore[type-var]
    generator = generator_for(seed, int(observation.knowledge.level), entry.name, device=_device(observation))
    try:
        check_requirements(attack, observation)
        found = attack.reconstruct(observation, generator=generator, progress=deadline)
        residual, up_to_scale = update_residuals(observation, found.fields)
    except RequirementError as error:
        return Trial(None, "refused", str(error), _since(deadline))
    except InvertigoError as error:
        return Trial(None, "failed", str(error), _since(deadline))
    except Exception as error:
        # Somebody's attack or model broke; the audit's other results must not go with it.
        return Trial(None, "failed", f"{type(error).__name__}: {error}", _since(deadline))
    planned, last = getattr(entry.attack, "iterations", None), deadline.ticks[-1] if deadline.ticks else None
    shortened = last is not None and bool(planned and last.total < planned)
    shortened |= deadline.stopped and last is not None and last.done < last.total
    return Trial(found, "ran", "", _since(deadline), shortened, residual, up_to_scale, last.done if last else None)


Residuals = tuple[float | None, float | None]
STRAY = 0.05
"""Part of the data's range that a candidate may leave it by: images have no pixel of fifty times white."""


def update_residuals(observation: Observation, candidate: Mapping[str, Tensor]) -> Residuals:
    r"""$\lVert g(\hat x) - g \rVert / \lVert g \rVert$ of a candidate, by training the client on it in simulation.

    The second one is $\min_s \lVert s\, g(\hat x) - g \rVert / \lVert g \rVert$, for attacks that match directions. It
    is that of $\hat x$ clamped to the range of the data where it strays from it: what cannot exist explains nothing.

    The attack's own objective has the attack's own scale; this has one meaning for all. None when the candidate lacks
    a field that the loss reads, or holds another number of examples than the batch is known to have.
    """
    domain, count = observation.task.domain, observation.num_examples
    read = {*getattr(domain, "reads", (domain.inputs,)), domain.target}
    held = {name: tensor for name, tensor in candidate.items() if name in read}
    if len(held) < len(read) or any(len(tensor) != (count or len(tensor)) for tensor in held.values()):
        return None, None
    like = next(iter(observation.parameters.values()))
    held = {k: t.to(like.device, like.dtype if t.is_floating_point() else None) for k, t in held.items()}
    simulate = functional_update(
        observation.task,
        observation.parameters,
        observation.buffers,
        observation.local,
        len(held[domain.inputs]),
        transformable=False,
    )
    view = observation.knowledge.view or AdversaryView("nothing of a defense")

    def distances(fields: Mapping[str, Tensor]) -> Residuals:
        fields = fields if view.transform is None else {**fields, **view.transform(fields)}
        with simulating(observation.task.model, observation.local.mode), torch.enable_grad():
            return _distances(observation, simulate(fields).update, view)

    residual, up_to_scale = distances(held)
    admissible = _in_range(domain, held)
    return residual, up_to_scale if admissible is held else distances(admissible)[1]


def _in_range(domain: Domain, fields: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The fields themselves, or a copy with those clamped that stray from the range of the data."""
    inside = dict(fields)
    for name in (name for name in domain.example_shapes() if name in fields and fields[name].is_floating_point()):
        low, high = (end.to(fields[name]) for end in domain.bounds(name))
        clamped, slack = fields[name].clamp(low, high), STRAY * (high - low)
        if bool(((fields[name] - clamped).abs() > slack).any()):
            inside[name] = clamped
    return inside if any(inside[name] is not fields[name] for name in fields) else fields


def _distances(observation: Observation, simulated: Mapping[str, Tensor], view: AdversaryView) -> Residuals:
    """Relative distances from the observed update of what the client would have sent, at the entries that tell."""
    if view.surrogate is not None:
        released = view.surrogate({name: tensor.detach()[None] for name, tensor in simulated.items()})
        simulated = {name: tensor[0] for name, tensor in released.items()}
    sent, received = [], []
    for name, observed in observation.update.tensors.items():
        seen = (view.visible or {}).get(name, torch.ones_like(observed)).double()
        sent.append((simulated[name].detach().double() * seen).flatten())
        received.append((observed.double() * seen).flatten())
    own, goal = torch.cat(sent), torch.cat(received)
    size = goal.norm().item()
    if not size:
        return None, None
    plain = (own - goal).norm().item() / size
    factor = max(0.0, ((own @ goal) / (own @ own)).item()) if own.any() else 0.0
    fitted = (factor * own - goal).norm().item() / size
    return plain, fitted if fitted < plain else plain


def _device(observation: Observation) -> torch.device:
    return next(iter(observation.update.tensors.values())).device


def _since(deadline: Deadline) -> float:
    return time.monotonic() - deadline.started
