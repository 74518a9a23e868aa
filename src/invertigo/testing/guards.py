"""The contract of a guard, one small check each."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch

from invertigo.federation import train_locally
from invertigo.guards.inspector import Inspector
from invertigo.testing import state
from invertigo.testing.contract import demand
from invertigo.testing.defenses import easy_client
from invertigo.types import (
    Declared,
    Finding,
    Gate,
    Guard,
    GuardVerdict,
    History,
    Local,
    Paper,
    Received,
)

NEEDS = {"probe", "update", "history", "initial", "fingerprint", "classes"}
ROUNDS = 12
"""Honest first models that a guard is shown, to see that it keeps calm."""


@dataclass(frozen=True)
class Visited:
    """What an honest server sent to a client that has taken part before, and what the client is about to send."""

    received: Received
    history: History
    local: Local


def easy_visit(seed: int = 0) -> Visited:
    """An honest model, drawn anew for each seed, on a client with five clean rounds behind it and an update to send."""
    client = easy_client(torch.float32)

    def drawn(generator: torch.Generator) -> torch.nn.Module:
        model = copy.deepcopy(client.task.model)
        with torch.no_grad():
            for module in model.modules():
                for own in module.parameters(recurse=False):
                    own.uniform_(-1, 1, generator=generator).mul_(module.weight[0].numel() ** -0.5)  # type: ignore
        return model

    task = dataclasses.replace(client.task, model=drawn(torch.Generator().manual_seed(1000 + seed)))
    received = Received({name: tensor.clone() for name, tensor in task.model.state_dict().items()})
    update = train_locally(task, client.batch, client.local)
    declared = Declared(initial=drawn, fingerprint=received.fingerprint)
    local = Local(
        task=task, batch=client.batch, training=client.local, update=update, round=9, declared=declared
    )  # fmt: skip
    figures = Inspector(declared=declared).inspect(received, History(), local).figures
    history = History()
    for number in range(5):
        history = history.add(GuardVerdict("pass", figures=figures, round=number))
    return Visited(received, history, local)


def guard_checks() -> tuple[Callable[..., None], ...]:
    """Every check as `check(guard, visited=None)`; ready for `pytest.mark.parametrize`."""
    return (
        check_metadata,
        check_form,
        check_findings,
        check_writes_to_nothing,
        check_deterministic,
        check_keeps_calm,
        check_first_contact,
    )


def check_guard(guard: Any, visited: Visited | None = None) -> None:
    """Run every check on `guard`: a class with usable defaults, or an instance. Raises: ContractError."""
    for check in guard_checks():
        check(guard, visited)


def check_metadata(guard: Any, visited: Visited | None = None) -> None:
    """The class says what it is called, who published it, at which gate it stands and what it needs."""
    kind = _kind(guard)
    for fact, wanted in {"name": str, "paper": Paper, "gate": str, "needs": frozenset}.items():
        value = inspect.getattr_static(kind, fact, None)
        demand(isinstance(value, wanted), f"{kind.__name__}.{fact} must be a class-level {wanted.__name__}: {value!r}.")
    demand(kind.name.replace("_", "").isalnum() and kind.name.islower(), f"{kind.name!r} is not lower_case_words.")
    demand(kind.gate in get_args(Gate), f"{kind.__name__}.gate is '{kind.gate}', not one of {get_args(Gate)}.")
    demand(kind.needs <= NEEDS, f"{kind.__name__}.needs names unknown {sorted(kind.needs - NEEDS)}.")
    documented = (kind.__doc__ or "").strip() and not kind.__doc__.startswith(f"{kind.__name__}(")
    demand(documented, f"{kind.__name__} has no docstring; `invertigo show {kind.name}` prints it.")


def check_form(guard: Any, visited: Visited | None = None) -> None:
    """A frozen dataclass whose settings are keyword-only and have defaults."""
    kind = _kind(guard)
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    demand(frozen, f"{kind.__name__} must be a frozen dataclass of its settings.")
    for item in dataclasses.fields(kind):
        given = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        demand(item.kw_only and given, f"{kind.__name__}.{item.name} must be keyword-only and have a default.")
    demand(isinstance(_instance(guard), Guard), f"{kind.__name__} lacks a member of invertigo.types.Guard.")


def check_findings(guard: Any, visited: Visited | None = None) -> None:
    """What it finds is of its own gate, says what and what to do, and names layers and rows that there are."""
    case = visited or easy_visit()
    modules, tensors = dict(case.local.task.model.named_modules()), case.received.tensors
    for found in _look(guard, case):
        demand(isinstance(found, Finding), f"{_kind(guard).__name__} returned a {type(found).__name__}.")
        demand(found.gate == _kind(guard).gate, f"A finding of '{found.rule}' stands at the gate '{found.gate}'.")
        demand(found.message.strip() and found.action.strip(), f"'{found.rule}' does not say what it found or advises.")
        known = found.layer is None or found.layer in modules or found.layer in tensors
        demand(known, f"'{found.rule}' names the layer '{found.layer}', which the model does not have.")
        demand(all(0 <= i < max(found.of, 1) for i in found.examples), f"'{found.rule}' names examples there are not.")


def check_writes_to_nothing(guard: Any, visited: Visited | None = None) -> None:
    """The model, the received tensors, the batch, the update and the global random states stay as they are."""
    case = visited or easy_visit()
    before = _everything(case)
    _look(guard, case)
    changed = state.changes(before, _everything(case))
    demand(not changed, f"Guard '{_kind(guard).name}' wrote to {', '.join(changed[:5])}.")


def check_deterministic(guard: Any, visited: Visited | None = None) -> None:
    """The same visit gives the same findings: a guard keeps no state and draws from nothing that is not fixed."""
    case = visited or easy_visit()
    demand(_look(guard, case) == _look(guard, case), f"Guard '{_kind(guard).name}' changes its mind on the same visit.")


def check_keeps_calm(guard: Any, visited: Visited | None = None) -> None:
    """On honest initialisations, small p-values are as rare as p-values say: none below one in a thousand of these."""
    if visited is not None:
        return
    smallest = []
    for seed in range(ROUNDS):
        p_values = [f.p_value for f in _look(guard, easy_visit(seed)) if f.p_value is not None]
        if p_values:
            smallest.append(min(1.0, min(p_values) * len(p_values)))
    demand(min(smallest, default=1.0) > 1e-3, f"Guard '{_kind(guard).name}' has p = {min(smallest, default=1):.1e} on "
           "one of a dozen honest models; its null law is wrong.")  # fmt: skip
    low = sum(p < 0.1 for p in smallest)
    # Under the null this many below 0.1 has a probability of less than 1 in 2,000.
    demand(low <= 6, f"Guard '{_kind(guard).name}' has {low} of {len(smallest)} honest p-values below 0.1.")


def check_first_contact(guard: Any, visited: Visited | None = None) -> None:
    """Without history, update, batch or declarations, the inspector runs or skips it, and does not fall over."""
    case = visited or easy_visit()
    bare = Local(task=case.local.task)
    verdict = Inspector(guards=(_instance(guard),)).inspect(case.received, History(), bare)
    demand(
        verdict.decision == "pass", f"Guard '{_kind(guard).name}' says {verdict.summary()} of an honest first model."
    )


def _look(guard: Any, case: Visited) -> tuple[Finding, ...]:
    local = case.local
    if "initial" in _kind(guard).needs:
        return _instance(guard).inspect(case.received, History(), dataclasses.replace(local, round=0))
    return _instance(guard).inspect(case.received, case.history, local)


def _everything(case: Visited) -> dict[str, Any]:
    local = case.local
    found = state.of_model(local.task.model) | state.of_process()
    found |= {f"received '{n}'": t.clone() for n, t in case.received.tensors.items()}
    found |= {} if local.batch is None else state.of_batch(local.batch)
    found |= {} if local.update is None else {f"update '{n}'": t.clone() for n, t in local.update.tensors.items()}
    return found


def _kind(guard: Any) -> Any:
    return guard if isinstance(guard, type) else type(guard)


def _instance(guard: Any) -> Any:
    return guard() if isinstance(guard, type) else guard
