"""From the dtype that arrived to the model's: without loss, with a rounding that was declared, or not at all."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from invertigo.types import MismatchError

Casts = Literal["lossless", "float32", "any"]
CASTS: tuple[Casts, ...] = ("lossless", "float32", "any")
"""What may be lost, from nothing up: `float32` also lets wider floating-point numbers be rounded to a model of float32
or wider, as averaging servers leave them and `load_state_dict` rounds them; `any` also lets half types round.
"""
INTEGRAL = 1e-6
"""Averages of equal counters miss their integer by rounding errors of this size."""


def cast(name: str, sent: Tensor, to: torch.dtype, casts: Casts) -> tuple[Tensor, str | None]:
    """The tensor in the model's dtype, and what was lost on the way; None where nothing was.

    Raises: MismatchError when more would be lost than `casts` allows.
    """
    if sent.dtype == to:
        return sent, None
    if sent.is_complex() or to.is_complex or to == torch.bool:
        raise _lossy(name, sent, to, "these do not convert into each other")
    if not to.is_floating_point:
        return _counted(name, sent, to)
    held = sent.to(to)
    if torch.equal(torch.nan_to_num(held.to(sent.dtype)), torch.nan_to_num(sent)):
        return held, None
    if gone := int((held.isinf() & ~sent.isinf()).sum()):
        raise _lossy(name, sent, to, f"{gone} of {sent.numel()} values lie outside the range of {to}")
    if casts == "lossless" or (casts == "float32" and torch.finfo(to).bits < 32):
        raise _lossy(name, sent, to, "digits would be lost, and no such rounding was declared (casts=, guard.casts)")
    return held, "rounded"


def _counted(name: str, sent: Tensor, to: torch.dtype) -> tuple[Tensor, str | None]:
    """Integers out of numbers. A single one is a counter, such as BatchNorm's, of which the whole part is kept."""
    values = sent.double()
    if not torch.isfinite(values).all() or (values.abs() > 2**53).any():
        raise _lossy(name, sent, to, "it holds NaN, Inf or numbers too large to be counted with")
    whole = values.round()
    if ((whole - values).abs() > INTEGRAL * values.abs().clamp(min=1)).any():
        if sent.numel() != 1:
            raise _lossy(name, sent, to, "its values are no whole numbers")
        return values.trunc().to(to), "its fraction cut off"
    info = torch.iinfo(to)
    if ((whole < info.min) | (whole > info.max)).any():
        raise _lossy(name, sent, to, f"its values lie outside the range of {to}")
    return whole.to(to), None


def _lossy(name: str, sent: Tensor, to: torch.dtype, why: str) -> MismatchError:
    return MismatchError(
        f"'{name}' is {sent.dtype}, not {to}, and {why}. Let the server send the model in its own dtypes."
    )
