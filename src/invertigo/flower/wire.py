"""How an update travelled, told from the message itself, beside what was said about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from invertigo.auditing.record import FlagRecord
from invertigo.types import InvalidValueError, did_you_mean

if TYPE_CHECKING:
    from invertigo.flower.exchange import Exchange

Said = Literal["encryption", "secure_aggregation"]
Kind = Literal["plaintext", "masked", "opaque"]
RANDOM_BYTES = 7.9
"""Bits a byte: ciphertext has 8 up to the sample's size, packed numbers and text clearly less."""
ENOUGH = 4096
"""Bytes, or masked numbers, from which entropy and uniformity are judged."""
BINS, SUSPICIOUS = 16, 90.0
"""Chi-square of 15 degrees of freedom: uniform numbers exceed this with a probability below 1e-12."""


@dataclass(frozen=True)
class Wire:
    """`plaintext`: arrays of numbers. `masked`: under a mask of secure aggregation. `opaque`: anything else.

    `entropy` is in bits a byte, `spread` the chi-square of masked numbers against the uniform law; None: not measured,
    because too little travelled.
    """

    kind: Kind = "plaintext"
    entropy: float | None = None
    spread: float | None = None

    def facts(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Wire:
        """What `facts` wrote. Raises: ValueError."""
        found = cls(**dict(facts))
        if found.kind not in get_args(Kind):
            raise ValueError(f"wire {found.kind!r}")
        return found


def entropy(data: bytes) -> float | None:
    """Bits a byte; None where there are too few bytes to tell."""
    if len(data) < ENOUGH:
        return None
    return -sum(n / len(data) * math.log2(n / len(data)) for n in Counter(data).values())


def spread(values: Tensor, modulus: int) -> float | None:
    r"""$\chi^2$ of numbers in $[0, m)$ against the uniform law; a mask makes them uniform, whatever is under it."""
    if values.numel() < 16 * BINS:
        return None
    counts = torch.bincount((values.double() / modulus * BINS).long().clamp(0, BINS - 1).flatten(), minlength=BINS)
    expected = values.numel() / BINS
    return float(((counts - expected) ** 2 / expected).sum())


def announced(said: Iterable[str]) -> tuple[str, ...]:
    """What protection is said to be on. Raises: InvalidValueError for one that is not known."""
    known = get_args(Said)
    for one in said:
        if one not in known:
            raise InvalidValueError(f"said={one!r}.{did_you_mean(one, known)} Known: {', '.join(known)}.")
    return tuple(said)


def wire_flags(found: Sequence[Exchange], said: Iterable[str] = ()) -> list[FlagRecord]:
    """What was said to be on and is not, as far as these messages show it; also what `Exchange.said` recorded."""
    wanted = {*announced(said), *(one for e in found for one in e.said)}
    flags = _encryption(found) if "encryption" in wanted else []
    return flags + (_aggregation(found) if "secure_aggregation" in wanted else [])


def _encryption(found: Sequence[Exchange]) -> list[FlagRecord]:
    told = "Encryption was said to be on, but"
    bare = [e for e in found if e.wire.kind == "plaintext"]
    thin = [e for e in found if e.wire.kind == "opaque" and e.wire.entropy is not None]
    thin = [e for e in thin if (e.wire.entropy or 0.0) < RANDOM_BYTES]
    return [
        *_flag("plaintext_despite_encryption", bare, found, f"{told} plaintext arrays travelled in {{}}."),
        *_flag("encoded_not_encrypted", thin, found, f"{told} the bytes in {{}} are more orderly than a cipher's."),
    ]


def _aggregation(found: Sequence[Exchange]) -> list[FlagRecord]:
    told = "Secure aggregation was said to be on, but"
    single = [e for e in found if e.wire.kind == "plaintext"]
    masked = [e for e in found if e.wire.kind == "masked"]
    bare = [e for e in masked if e.wire.spread is not None and e.wire.spread > SUSPICIOUS]
    counts = Counter(e.round for e in masked)
    alone = [e for e in masked if counts[e.round] == 1]
    return [
        *_flag("single_updates_readable", single, found, f"{told} single updates are readable in {{}}."),
        *_flag("mask_not_uniform", bare, found, f"{told} numbers are not spread as under a mask in {{}}."),
        *_flag("aggregate_of_one", alone, found, f"{told} nobody else answered in the rounds of {{}}."),
    ]


def _flag(code: str, some: Sequence[Exchange], found: Sequence[Exchange], message: str) -> list[FlagRecord]:
    if not some:
        return []
    where = f"{len(some)} of {len(found)} recorded updates (first: round {some[0].round}, node {some[0].node})"
    remedy = "Look at what the clients send: the mods of the client app, and who holds the keys."
    return [FlagRecord(code=code, severity="warning", message=message.format(where), remedy=remedy)]
