"""Matching an update that tells less than the client's own: with stronger priors, and no closer than it can be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from invertigo.attacks.matching.objectives import Nothing
from invertigo.attacks.matching.priors import GroupConsistency, Multiplied, Prior, TotalVariation
from invertigo.attacks.matching.problem import Problem

MULTIPLIERS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""What the prior's own weight is multiplied by, each in a restart of its own."""
PARTIAL = (1.0, 3.0, 10.0)
"""The same where entries are missing, but those that are left are exact."""
SLACK = 1.5
"""Misfits of exact entries that differ by less than this factor are alike: attacks do not end in the minimum."""
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
    """The same problem with every restart once for each of `MULTIPLIERS` (`PARTIAL`), where noise counts (or entries
    are missing) and a prior can make up for it.

    Restarts that pull each other together (`GroupConsistency`) stay as they are.
    """
    smoothing = [prior for prior in problem.priors if isinstance(prior, TotalVariation)]
    coupled = any(isinstance(prior, GroupConsistency) for prior in problem.priors)
    noisy = problem.noise_share >= NEGLIGIBLE
    if isinstance(problem.objective, Nothing) or not smoothing or coupled or not (noisy or is_partial(problem)):
        return problem, start
    chosen = MULTIPLIERS if noisy else PARTIAL
    factors = start.new_tensor(chosen).repeat_interleave(len(start))
    priors = tuple(Multiplied(p, factors) if isinstance(p, TotalVariation) else p for p in problem.priors)
    return replace(problem, priors=priors), start.repeat(len(chosen), 1)


def is_partial(problem: Problem) -> bool:
    """Whether the adversary knows that entries of the update are missing, and some are left to be matched."""
    view = problem.observation.knowledge.view
    if view is None or not problem.visible_entries:
        return False
    return view.partial or any(not bool(mask.all()) for mask in (view.visible or {}).values())


def multipliers(priors: Sequence[Prior]) -> Tensor | None:
    """(restart,) factors that `spread` chose, None where it left the problem alone."""
    return next((prior.factors for prior in priors if isinstance(prior, Multiplied)), None)


def by_discrepancy(problem: Problem, misfits: Tensor, factors: Tensor) -> int:
    """The restart to return of those that `spread` made, by their misfits (restart,); see `strongest_that_fits`."""
    explained = problem.objective.explained_by(problem.observed, problem.noise, problem.weights)
    if problem.noise_share < NEGLIGIBLE:
        explained = max(explained, SLACK * float(torch.where(misfits.isfinite(), misfits, torch.inf).min()))
    return strongest_that_fits(misfits, factors, explained=explained, entries=problem.visible_entries)


def by_replay(problem: Problem, candidates: Tensor) -> int:
    r"""The candidate (restart, unknown) of which the client would have sent the fewest entries $m$ otherwise.

    Of those with up to $m + 2\sqrt m$, a difference that chance makes, the one with the strongest prior.
    """
    differing = torch.cat([_differing(problem, row[None]) for row in candidates])
    factors = multipliers(problem.priors)
    factors = torch.ones_like(differing) if factors is None else factors
    least = float(differing.min())
    return strongest_that_fits(differing, factors, explained=least + 2 * math.sqrt(least), entries=10**9)


def _differing(problem: Problem, candidate: Tensor) -> Tensor:
    """(1,) entries of the received update that differ from the candidate's, sent by the same defense."""
    view = problem.observation.knowledge.view
    assert view is not None
    assert view.replay is not None
    exact = replace(problem, observation=problem.observation.informed(replace(view, surrogate=view.replay)))
    sent = exact.simulate(candidate.detach())[0]
    return torch.stack([(s != o).sum() for s, o in zip(sent, problem.observed)]).sum()[None].to(candidate)


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
