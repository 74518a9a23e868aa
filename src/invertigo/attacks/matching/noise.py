"""Matching an update that carries noise of known size: no closer than the noise lets it be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from invertigo.attacks.matching.objectives import Nothing
from invertigo.attacks.matching.priors import GroupConsistency, Multiplied, Prior, TotalVariation
from invertigo.attacks.matching.problem import Problem

MULTIPLIERS = (1.0, 3.0, 10.0, 30.0, 100.0)
"""What the prior's own weight is multiplied by, each in a restart of its own."""
NEGLIGIBLE = 1e-3
"""Share of the update's energy under which noise is less than what attacks leave unmatched anyway."""
UNMATCHED = 0.1
"""What attacks leave unmatched of every entry, in units of the update's root mean square entry."""


def inverse_variances(
    weights: list[Tensor] | None,
    noise: Mapping[str, float] | None,
    observed: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
) -> list[Tensor] | None:
    r"""`weights` times $1 / (\sigma_l^2 + (0.1\,r)^2)$ for each layer, brought to mean 1 over layers.

    $r$ is the update's root mean square entry: a tenth of it stays unmatched without any noise, and a layer with less
    noise than that deserves no more weight. Noise alike in all layers changes nothing.
    """
    if not noise:
        return weights
    entries = sum(t.numel() for t in observed.values())
    own = UNMATCHED**2 * sum(float(t.double().square().sum()) for t in observed.values()) / entries
    inverse = [1 / max(noise.get(name, 0.0) ** 2 + own, 1e-300) for name in parameters]
    if max(inverse) < 1.01 * min(inverse):
        return weights
    factors = [value * len(inverse) / sum(inverse) for value in inverse]
    before = weights or [p.new_tensor(1.0) for p in parameters.values()]
    return [weight * factor for weight, factor in zip(before, factors)]


def spread(problem: Problem, start: Tensor) -> tuple[Problem, Tensor]:
    """The same problem with every restart once for each of `MULTIPLIERS`, where noise counts and a prior can hold it.

    Restarts that pull each other together (`GroupConsistency`) stay as they are.
    """
    smoothing = [prior for prior in problem.priors if isinstance(prior, TotalVariation)]
    coupled = any(isinstance(prior, GroupConsistency) for prior in problem.priors)
    idle = isinstance(problem.objective, Nothing) or not smoothing or coupled
    if idle or problem.noise_share < NEGLIGIBLE:
        return problem, start
    factors = start.new_tensor(MULTIPLIERS).repeat_interleave(len(start))
    priors = tuple(Multiplied(p, factors) if isinstance(p, TotalVariation) else p for p in problem.priors)
    return replace(problem, priors=priors), start.repeat(len(MULTIPLIERS), 1)


def multipliers(priors: Sequence[Prior]) -> Tensor | None:
    """(restart,) factors that `spread` chose, None where it left the problem alone."""
    return next((prior.factors for prior in priors if isinstance(prior, Multiplied)), None)


def by_discrepancy(problem: Problem, misfits: Tensor, factors: Tensor) -> int:
    """The restart to return of those that `spread` made, by their misfits (restart,); see `strongest_that_fits`."""
    explained = problem.objective.explained_by(problem.observed, problem.noise, problem.weights)
    return strongest_that_fits(misfits, factors, explained=explained, entries=problem.visible_entries)


def strongest_that_fits(misfits: Tensor, factors: Tensor, *, explained: float, entries: int) -> int:
    r"""The restart with the strongest prior among those that match as well as the noise lets the truth itself match.

    That is up to $m\,(1 + \sqrt{2/n})$, where $m$ is the misfit that noise alone explains and $\sqrt{2/n}$ its relative
    spread over $n$ entries; where no restart comes that near, $m$ is the smallest misfit reached. Among restarts with
    equal priors, the nearest. A weaker prior would fit the noise: on images, that costs decibels.

    Source: Morozov (1966), the discrepancy principle. Attacks do not end in the minimum, so the strongest sufficient
    prior is taken rather than the one whose misfit is nearest to m.
    """
    misfits = torch.where(misfits.isfinite(), misfits, torch.inf)
    allowed = max(explained, float(misfits.min())) * (1 + math.sqrt(2 / entries))
    sufficient = misfits.isfinite() & (misfits <= allowed)
    if not bool(sufficient.any()):
        return int(misfits.argmin())
    strongest = factors[sufficient].max()
    return int(torch.where(sufficient & (factors == strongest), misfits, torch.inf).argmin())
