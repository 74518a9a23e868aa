"""Differential-privacy budgets of the Gaussian mechanism, as Opacus counts them."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from invertigo.types import InvalidValueError
from invertigo.types.extras import require

Accountant = Literal["rdp", "prv"]


@lru_cache(maxsize=256)
def epsilon(
    noise_multiplier: float, *, sample_rate: float, steps: int, delta: float, accountant: Accountant = "rdp"
) -> float:
    r"""$\varepsilon$ at `delta` of `steps` releases with noise `noise_multiplier` times their sensitivity.

    Each release reads a Poisson sample of the records at `sample_rate`. Computed by Opacus' accountant: Rényi ("rdp")
    or privacy random variables ("prv"), which is tighter and slower.

    Raises: MissingExtraError without Opacus.
    """
    name = {"rdp": "RDPAccountant", "prv": "PRVAccountant"}[accountant]
    counter = getattr(require("opacus.accountants", "dp"), name)()
    counter.history = [(noise_multiplier, sample_rate, steps)]
    return float(counter.get_epsilon(delta=delta))


def check_budget(noise_multiplier: float, delta: float, steps: int, accountant: str = "rdp") -> None:
    """Raises: InvalidValueError for settings under which no privacy statement can be made."""
    if noise_multiplier < 0:
        raise InvalidValueError(
            f"noise_multiplier is {noise_multiplier}; noise cannot be negative. It is the noise's standard deviation "
            "over what one record can change: 1 gives single-digit epsilons in short trainings, 0 no privacy at all."
        )
    if not 0 < delta < 1:
        raise InvalidValueError(
            f"delta is {delta}; it is the probability with which the epsilon may fail and lies in (0, 1). "
            "Take less than one over the number of records, for instance 1e-5."
        )
    if steps < 1:
        raise InvalidValueError(f"{steps} noisy releases cannot be counted; a client releases at least one.")
    if accountant not in ("rdp", "prv"):
        raise InvalidValueError(f"accountant is {accountant!r}; Opacus' 'rdp' and 'prv' are supported.")
