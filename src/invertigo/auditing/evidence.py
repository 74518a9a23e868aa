"""What an audit found, gathered for the flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from invertigo.auditing.record import (
    AttackRecord,
    BaselineRecord,
    ControlRecord,
    DefenseRecord,
    FlagRecord,
    MetricRecord,
    UtilityRecord,
)


@dataclass(frozen=True)
class Evidence:
    """All that the flags look at."""

    attacks: Sequence[AttackRecord] = ()
    baselines: Sequence[BaselineRecord] = ()
    metrics: Sequence[MetricRecord] = ()
    num_examples: int | None = None
    scored: bool = True
    decoys: int = 0
    wanted_decoys: int = 100
    borrowed: str = ""
    """Name of the bundled set that stands in for public data of the client's own kind."""
    statistics_assumed_from: int | None = None
    """Lowest rung on which batch statistics were handed over although the client does not share them."""
    range_inferred: bool = False
    relative_norm: float = 1.0
    """Length of the update over the length of the parameters."""
    dropout: bool = False
    defense: DefenseRecord | None = None
    utility: UtilityRecord | None = None
    interrupted: bool = False
    controls: Sequence[ControlRecord] = ()
    curtailed: Sequence[tuple[str, str, int, int]] = ()
    """(attack, setting, value, default) where an attack was given less work than it does by default."""
    outside_range: float = 0.0
    """Furthest that a private value lies outside the range that its domain states, in parts of that range."""
    filled: float = 1.0
    """Part of their domain's range that the private inputs take up."""
    remarks: Sequence[FlagRecord] = ()
    """Flags that the private examples and the model call for by themselves."""

    @property
    def ran(self) -> list[AttackRecord]:
        """The attacks that produced a reconstruction."""
        return [attack for attack in self.attacks if attack.status == "ran"]
