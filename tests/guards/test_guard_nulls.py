"""The null laws hold: p-values are uniform or larger, and budgets add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertigo.guards.budget import Budget, holm
from invertigo.guards.nulls import (
    conformal_p,
    cosine_tail,
    dominance_p,
    least_error,
    one_direction_p,
    pairs_p,
    predictive_p,
    sign_balance_p,
)
from invertigo.types import Finding, InvalidValueError

rng = np.random.default_rng(0)


def test_sign_balance_is_uniform_for_random_rows():
    weights = rng.normal(size=(400, 32, 65))
    p = [sign_balance_p((w < 0).sum(1).astype(float), np.full(32, 65.0)) for w in weights]
    for level in (0.05, 0.2, 0.5):
        assert abs(np.mean(np.array(p) < level) - level) < 3 * (level / 400) ** 0.5


def test_exactly_balanced_rows_are_impossible_by_chance():
    assert sign_balance_p(np.full(20, 32.0), np.full(20, 64.0)) < 1e-12
    assert sign_balance_p(np.zeros(0), np.zeros(0)) == 1.0


def test_cosine_tail_matches_random_directions():
    rows = rng.normal(size=(2000, 2, 8))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    seen = np.mean(np.abs((rows[:, 0] * rows[:, 1]).sum(1)) > 0.5)
    assert cosine_tail(0.5, 8) == pytest.approx(seen, abs=0.03)
    assert cosine_tail(1.0, 100) == 0.0


def test_dominance_bounds_what_random_kernels_show():
    kernels = np.abs(rng.normal(size=(4000, 9)))
    share = kernels.max(1) / kernels.sum(1)
    for level in (0.5, 0.6):
        assert np.mean(share > level) <= dominance_p(level, 9) + 0.005
    assert dominance_p(1.0, 9) == 0.0


def test_more_alike_pairs_are_less_probable():
    assert pairs_p(0, 1000, 1e-3) == 1.0
    assert pairs_p(1, 1000, 1e-3) > pairs_p(4, 1000, 1e-3) > pairs_p(40, 1000, 1e-3)
    assert one_direction_p(0.45, 128) == 1.0
    assert one_direction_p(0.9, 128) < 1e-15


def test_conformal_p_values_are_uniform():
    values = rng.normal(size=(3000, 20))
    p = np.array([conformal_p(list(row[:-1]), row[-1]) for row in values])
    for level in (0.05, 0.1, 0.5):
        assert abs(np.mean(p <= level) - level) < 0.03
    assert conformal_p([], 1.0) is None


def test_a_jump_is_noticed_and_noise_is_not():
    noise = rng.normal(scale=0.2, size=(300, 12))
    honest = [predictive_p(list(enumerate(row[:-1])), row[-1], floor=0.2) for row in noise]
    assert np.mean(np.array(honest) < 0.05) < 0.09
    falling = [(r, 2.3 * 0.8**r) for r in (0, 1, 5, 9, 17)]
    assert predictive_p(falling, 0.1, floor=0.25) > 0.2
    assert predictive_p(falling, 2.3, floor=0.25) < 5e-3
    assert predictive_p(falling[:1], 2.2, floor=0.25) > 0.2


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_textbook_rejects(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.2):
        order = sorted(range(len(p_values)), key=p_values.__getitem__)
        rejected = set()
        for rank, index in enumerate(order):
            if p_values[index] * (len(p_values) - rank) > level:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


def test_the_budget_is_not_overspent_however_many_rounds():
    budget = Budget()
    assert sum(3 * budget.share(t) for t in range(10_000)) == pytest.approx(1, abs=1e-3)
    with pytest.raises(InvalidValueError, match="block <= warn"):
        Budget(block=0.1, warn=0.01)


def test_decisions_follow_the_budget():
    def found(p: float) -> Finding:
        return Finding("rule", "train", "malice", 1.0, p, "message", "action")

    budget = Budget(block=1e-5, warn=1e-3)
    assert [level for _, level in budget.decide([found(1e-9), found(1e-5), found(0.5)], 0)] == ["block", "warn", "pass"]
    assert [level for _, level in budget.decide([found(1e-5)], 100)] == ["pass"]


def test_null_guards_find_uniform_noise_harmless():
    """A thousand honest initialisations of one layer: no structural test reaches a millionth."""
    from invertigo.guards.duplicate_rows import common_energy, unit_rows

    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        _, unit = unit_rows(torch.rand(64, 49, generator=generator) - 0.5, 4096)
        exact = float(torch.linalg.eigvalsh(unit @ unit.T)[-1]) / 64
        assert common_energy(unit) <= exact + 1e-6
        assert common_energy(unit) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_no_calibrated_classifier_errs_less_than_its_loss_entails(classes):
    generator = np.random.default_rng(classes)
    for sharpness in (0.01, 0.1, 1.0, 10.0):
        shares = np.maximum(generator.dirichlet(np.full(classes, sharpness), size=2000), 1e-30)
        loss = float(-(shares * np.log(shares)).sum(1).mean())  # labels drawn from what it says
        error = float(1 - (shares**2).sum(1).mean())
        assert least_error(loss, classes) <= error + 1e-9
    assert least_error(5.0, classes) == pytest.approx(1 - 1 / classes)
    assert least_error(0.0, classes) == pytest.approx(0.0, abs=1e-6)
