"""What the naive attack finds, as one more candidate of an adversary who knows the defense."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from invertigo.attacks.matching.objectives import Nothing
from invertigo.attacks.matching.pace import Optimum
from invertigo.attacks.matching.priors import GroupConsistency, Multiplied
from invertigo.attacks.matching.problem import Problem
from invertigo.attacks.matching.space import Space

NAIVE_NOTE = "of all candidates, that of the attack without knowledge of the defense explains what was sent best"


def compares(problem: Problem) -> bool:
    """Whether candidates can be told apart by what a known defense would have sent of them."""
    informed = problem.observation.knowledge.view is not None
    return informed and not isinstance(problem.objective, Nothing) and problem.visible_entries > 0


def with_candidate(problem: Problem, optimum: Optimum, space: Space, flat: Tensor) -> tuple[Problem, Optimum]:
    """`problem` and `optimum` with another candidate (1, unknown of `space`) at the end, its prior at the usual weight.

    Random draws of the defense, which the candidate does not have, stand at 0, the likeliest value. A candidate of
    another form, with more examples say, is left out.
    """
    named = space.unpack(flat)
    for name, field in problem.space.fields.items():
        draws = flat.new_zeros(1, *field.shape)
        if named.setdefault(name, draws).shape != draws.shape:
            return problem, optimum
    row = problem.space.pack(named)
    alone = tuple(p.prior if isinstance(p, Multiplied) else p for p in problem.priors if not _coupling(p))
    value = replace(problem, priors=alone).value(row)
    priors = tuple(_one_more(p) if isinstance(p, Multiplied) else p for p in problem.priors)
    more = replace(optimum, best=torch.cat([optimum.best, row]), values=torch.cat([optimum.values, value]))
    return replace(problem, priors=priors), more


def _coupling(prior: object) -> bool:
    return isinstance(prior, GroupConsistency)


def _one_more(prior: Multiplied) -> Multiplied:
    return replace(prior, factors=torch.cat([prior.factors, prior.factors.new_ones(1)]))
