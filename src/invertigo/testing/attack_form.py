"""What an attack says about itself, and the form it has."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from invertigo.domains import registry as domains
from invertigo.testing.cases import Case
from invertigo.testing.contract import demand
from invertigo.testing.running import instance_of, kind_of
from invertigo.types import ActiveAttack, Attack, Paper, Requirement

FACTS = {"name": str, "paper": Paper, "requires": frozenset, "domains": frozenset, "exact": bool}


def check_metadata(attack: Any, case: Case | None = None) -> None:
    """The class says what it is called, who published it, what it needs, what it reads, and whether it is exact."""
    kind = kind_of(attack)
    for fact, wanted in FACTS.items():
        value = inspect.getattr_static(kind, fact, None)
        demand(
            isinstance(value, wanted), f"{kind.__name__}.{fact} must be a class-level {wanted.__name__}, not {value!r}."
        )
    demand(kind.name and kind.name.replace("_", "").isalnum() and kind.name.islower(),
           f"An attack's name is lower_case_words, not {kind.name!r}.")  # fmt: skip
    demand(all(isinstance(r, Requirement) for r in kind.requires), f"{kind.__name__}.requires must hold Requirements.")
    demand(kind.domains, f"{kind.__name__}.domains is empty, so it could attack nothing.")
    if case is None:
        unknown = sorted(set(kind.domains) - set(domains))
        demand(not unknown, f"{kind.__name__}.domains names {unknown}, which nobody registered. Known: {[*domains]}.")
    paper = kind.paper
    demand(paper.key and paper.title and paper.authors and paper.year > 1900, f"{kind.__name__}.paper is incomplete.")
    demand((kind.__doc__ or "").strip() and not kind.__doc__.startswith(f"{kind.__name__}("),
           f"{kind.__name__} has no docstring; `invertigo show {kind.name}` prints it.")  # fmt: skip


def check_form(attack: Any, case: Case | None = None) -> None:
    """A frozen dataclass whose hyper-parameters are keyword-only and have defaults, with the method of the protocol."""
    kind = kind_of(attack)
    demand(dataclasses.is_dataclass(kind), f"{kind.__name__} must be a dataclass of its hyper-parameters.")
    demand(kind.__dataclass_params__.frozen, f"{kind.__name__} must be frozen: an attack is stateless.")
    for item in dataclasses.fields(kind):
        demand(item.kw_only, f"{kind.__name__}.{item.name} must be keyword-only (kw_only=True).")
        demand(item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING,
               f"{kind.__name__}.{item.name} needs a default: the paper's.")  # fmt: skip
    demand(isinstance(instance_of(attack), Attack), f"{kind.__name__} lacks a member of invertigo.types.Attack.")
    _takes_keywords(kind, "reconstruct", ("generator", "progress"))
    if Requirement.CRAFTED_MODEL in kind.requires:
        demand(isinstance(instance_of(attack), ActiveAttack),
               f"{kind.__name__} requires a crafted model, so it needs a method that plants it.")  # fmt: skip
        _takes_keywords(kind, "plant", ("public", "num_examples", "clients", "generator"))


def _takes_keywords(kind: type, method: str, names: tuple[str, ...]) -> None:
    named = inspect.signature(getattr(kind, method)).parameters
    for name in names:
        kept = name in named and named[name].kind is inspect.Parameter.KEYWORD_ONLY
        demand(kept, f"{kind.__name__}.{method} must take {name} as a keyword.")
