"""Which attacks an audit tries, cheapest certainty first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from invertigo import attacks
from invertigo.auditing.scenario import AttackSection
from invertigo.types import Attack, Requirement, Task

SMALL_UNKNOWNS = 30_000
"""Gauss–Newton on more unknowns than this takes minutes a round on a processor."""
SMALL_PARAMETERS = 3_000_000
SUPERSEDED = frozenset({"auto", "dlg", "idlg"})
"""Left out when the audit chooses: `auto` would repeat the others, and Gauss–Newton solves DLG's problem better."""
ON_REQUEST = frozenset({"amortised_inverter", "generative_prior", "seer"})
"""Left out when the audit chooses: they train a network for minutes before they look at the update."""


@dataclass(frozen=True)
class Entry:
    """An attack to try; `pinned` tells that its schedule was set by the user and must not be shortened."""

    attack: Attack
    pinned: bool = False

    @property
    def name(self) -> str:
        """The attack's name in the registry."""
        return self.attack.name


def choose(
    wanted: str | Sequence[Any] | None, task: Task, num_examples: int | None, *, planting: bool = False
) -> list[Entry]:
    """The attacks to try, exact ones first.

    Args:
        wanted: None or "auto" to let the audit choose, else names, `AttackSection`s, attack classes or attacks.
        num_examples: size of the private batch, which bounds the unknowns.
        planting: the audit may also choose attacks of a malicious server.

    Raises: UnknownNameError, ConfigurationError for a hyper-parameter that an attack does not have.
    """
    if wanted is None or wanted == "auto":
        return _automatic(task, num_examples or 1, planting)
    listed = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Sequence) else wanted
    return sorted((_entry(one) for one in listed), key=lambda entry: not entry.attack.exact)


def plants(attack: Attack | type[Attack]) -> bool:
    """The attack is a malicious server's: it crafts the model first."""
    return Requirement.CRAFTED_MODEL in attack.requires


def _entry(wanted: Any) -> Entry:
    if isinstance(wanted, str):
        return Entry(attacks.make(wanted))
    if isinstance(wanted, Mapping):
        wanted = AttackSection.model_validate(dict(wanted))
    if isinstance(wanted, AttackSection):
        chosen = wanted.hyperparameters
        return Entry(attacks.make(wanted.name, **chosen), pinned=bool({"iterations", "seconds"} & set(chosen)))
    if isinstance(wanted, type):
        return Entry(wanted())
    return Entry(wanted, pinned=True)


def _automatic(task: Task, num_examples: int, planting: bool) -> list[Entry]:
    fitting = [
        attacks.registry[name] for name in attacks.registry if task.domain.name in attacks.registry[name].domains
    ]
    fitting = [attack for attack in fitting if planting or not plants(attack)]
    exact = [attack for attack in fitting if attack.exact]
    left_out = SUPERSEDED | ON_REQUEST
    rest = {attack.name: attack for attack in fitting if not attack.exact and attack.name not in left_out}
    if not is_small(task, num_examples):
        rest.pop("gauss_newton", None)
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in task.model.modules()):
        rest = {name: a for name, a in rest.items() if Requirement.BATCH_STATISTICS not in a.requires}
    order = sorted(rest, key=lambda name: (name != "gauss_newton", name))
    return [Entry(attack()) for attack in [*exact, *(rest[name] for name in order)]]


def is_small(task: Task, num_examples: int) -> bool:
    """Second-order matching pays: few unknowns and few parameters. Kinks (ReLU, max pooling) do not keep it from
    winning, because a first-order approach comes first."""
    shapes = task.domain.example_shapes().values()
    unknowns = num_examples * sum(_product(shape) for shape in shapes)
    parameters = sum(p.numel() for p in task.model.parameters())
    return unknowns <= SMALL_UNKNOWNS and parameters <= SMALL_PARAMETERS


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
