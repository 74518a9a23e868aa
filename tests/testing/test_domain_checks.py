"""The checks of domains: `Images` passes them, and each broken domain fails the check made for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from invertigo.domains import Images
from invertigo.testing import ContractError, check_domain, domain_checks
from invertigo.types import Batch, Identification, Scores

SHAPE = (1, 12, 12)


def fails(check: str, domain: Any, match: str) -> None:
    chosen = {c.__name__: c for c in domain_checks()}[check]
    with pytest.raises(ContractError, match=match):
        chosen(domain)


class Same(Images):
    """Every score is the same."""

    def score(self, truth, reconstruction):
        found = super().score(truth, reconstruction)
        return Scores({name: torch.zeros(len(truth)) for name in found.per_example}, found.matching)


class Aggregate(Images):
    """One score for the whole batch."""

    def score(self, truth, reconstruction):
        found = super().score(truth, reconstruction)
        return Scores({name: scores.mean()[None] for name, scores in found.per_example.items()}, found.matching)


class InOrder(Images):
    """Pairs by position."""

    def score(self, truth, reconstruction):
        return dataclasses.replace(super().score(truth, reconstruction), matching=torch.arange(len(truth)))


class Cheating(Images):
    """A baseline that has seen the truth."""

    def baselines(self, truth, public):
        return {"oracle": self.score(truth, truth.fields)}


class NoBaseline(Images):
    """Nothing to compare with."""

    def baselines(self, truth, public):
        return {}


class ZeroRanks(Images):
    """Counts ranks from zero."""

    def identify(self, truth, reconstruction, decoys):
        found = super().identify(truth, reconstruction, decoys)
        return Identification(found.ranks - 1, found.decoys)


class Backwards(Images):
    """Bounds the wrong way round."""

    def bounds(self, name):
        low, high = super().bounds(name)
        return high, low


class Painter(Images):
    """Clamps its input in place."""

    def render(self, fields):
        for tensor in fields.values():
            tensor.zero_()
        return super().render(fields)


class OnePicture(Images):
    """Draws the first example only."""

    def render(self, fields):
        return super().render(fields)[:1]


class Gambler(Images):
    """Draws its baselines from the global generator."""

    def baselines(self, truth, public):
        torch.rand(1)
        return super().baselines(truth, public)


@pytest.mark.parametrize(
    ("check", "domain", "match"),
    [
        ("check_facts", Backwards, "enclose nothing"),
        ("check_truth_scores_best", Same, "as good as the truth"),
        ("check_truth_scores_best", Aggregate, "one score each"),
        ("check_matching_undoes_a_permutation", InOrder, "was matched as"),
        ("check_baselines", Cheating, "must have read it"),
        ("check_baselines", NoBaseline, "needs a baseline"),
        ("check_identification", ZeroRanks, "not first"),
        ("check_pictures", OnePicture, "1 pictures were drawn of 4"),
        ("check_nothing_is_written_to", Painter, "wrote to a batch"),
        ("check_nothing_is_written_to", Gambler, "global random state"),
    ],
)
def test_a_broken_domain_is_found(check, domain, match):
    fails(check, domain(shape=SHAPE), match)


def test_a_good_domain_passes():
    check_domain(Images(shape=SHAPE))


def test_real_examples_can_be_given():
    generator = torch.Generator().manual_seed(0)
    truth = Batch({"images": torch.rand(4, *SHAPE, generator=generator), "labels": torch.arange(4)})
    check_domain(Images(shape=SHAPE), truth)
