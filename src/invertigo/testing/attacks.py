"""The contract of an attack: the list of its checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from invertigo.testing.attack_form import check_form, check_metadata
from invertigo.testing.attack_manners import (
    check_observation_untouched,
    check_refuses_other_domains,
    check_refuses_unmet_requirements,
    check_restores_state,
)
from invertigo.testing.attack_plants import check_plant
from invertigo.testing.attack_results import (
    check_beats_mid_grey,
    check_reproducible,
    check_result,
    check_stops_when_asked,
)
from invertigo.testing.cases import Case


def attack_checks() -> tuple[Callable[..., None], ...]:
    """Every check as `check(attack, case=None)`; ready for `pytest.mark.parametrize`."""
    return (
        check_metadata,
        check_form,
        check_result,
        check_beats_mid_grey,
        check_reproducible,
        check_restores_state,
        check_observation_untouched,
        check_refuses_unmet_requirements,
        check_refuses_other_domains,
        check_stops_when_asked,
        check_plant,
    )


def check_attack(attack: Any, case: Case | None = None) -> None:
    """Run every check on `attack`: a class with usable defaults, or an instance set to run quickly.

    `case` is what it attacks; without one, an attack on images gets `easy_case`. Raises: ContractError.
    """
    for check in attack_checks():
        check(attack, case)
