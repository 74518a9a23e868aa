"""Whether what was tried contains what an audit tries by itself: only then is the verdict about the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from invertigo.auditing.case import Case
from invertigo.auditing.controls.schedule import EFFORT
from invertigo.auditing.ladder import Rung
from invertigo.auditing.portfolio import Entry, choose, plants
from invertigo.types import Attack, Requirement

HARMLESS = ("seconds", "compile")
"""Settings that change no result, or whose effect the schedule control sees."""


def contains_automatic(entries: Sequence[Entry], case: Case, rungs: Sequence[Rung]) -> bool:
    """Every attack and every rung that the audit would have chosen is among those that were."""
    usual = choose(None, case.task, case.num_examples)
    attacks = all(any(_at_least(entry.attack, own.attack) for entry in entries) for own in usual)
    public = any(Requirement.PUBLIC_DATA in own.attack.requires for own in usual)
    planting = any(plants(own.attack) for own in usual)
    wanted = {rung.level for rung in case.rungs(None, public, planting) if rung.attacked}
    return bool(usual) and attacks and wanted <= {rung.level for rung in rungs if rung.attacked}


def _at_least(given: Attack, usual: Attack) -> bool:
    """The same attack with the same settings, or with more work than by default."""
    if type(given) is not type(usual):
        return False
    return all(_no_less(f.name, getattr(given, f.name), getattr(usual, f.name)) for f in fields(usual))  # type: ignore[arg-type]


def _no_less(name: str, given: object, usual: object) -> bool:
    if name in HARMLESS or given is usual:
        return True
    if isinstance(given, Tensor) or isinstance(usual, Tensor):
        return isinstance(given, Tensor) and isinstance(usual, Tensor) and torch.equal(given, usual)
    if given == usual:
        return True
    return name in EFFORT and isinstance(given, int) and isinstance(usual, int) and given > usual
