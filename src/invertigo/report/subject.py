"""What was audited, in one line: whose examples, through which model, trained and sent how, defended by what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from invertigo.auditing.record import AuditRecord

CHOICES = ("attacks", "budget", "decoys", "seed", "title", "description", "expect", "compare", "adversary")
"""Keys of a scenario that say how the audit was made, not which client it was made of."""


def subject(record: AuditRecord) -> str:
    """`8 private examples (images of faces), through mlp; one gradient in training mode; no defense`."""
    return "; ".join(_clauses(record))


def same_client(one: AuditRecord, other: AuditRecord) -> bool:
    """Two audits looked at the same update: same data, model, training and defense, whatever attacks they ran."""
    left, right = ({k: v for k, v in r.scenario.items() if k not in CHOICES} for r in (one, other))
    clients = [_part(r.scenario, "adversary").get("clients") for r in (one, other)]
    return bool(left) and left == right and clients[0] == clients[1] and one.num_examples == other.num_examples


def _clauses(record: AuditRecord) -> Iterator[str]:
    setting, n = record.scenario, record.num_examples
    data = _part(setting, "data").get("name")
    kind = record.domain["name"] + (f" of '{data}'" if data else "")
    yield f"{n} private {'example' if n == 1 else 'examples'} ({kind}){_model(_part(setting, 'model'))}"
    yield from _training(_part(setting, "local"), n)
    clients = setting.get("clients") or _part(setting, "adversary").get("clients") or 1
    if clients > 1:
        yield f"the sum over {clients} clients"
    yield _defense(record)


def _part(setting: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = setting.get(name)
    return found if isinstance(found, Mapping) else {}


def _model(model: Mapping[str, Any]) -> str:
    name, parameters = model.get("name") or model.get("factory"), model.get("parameters")
    if not name:
        return ""
    return f", model {name}" + (f" ({parameters:,} parameters)" if isinstance(parameters, int) else "")


def _training(local: Mapping[str, Any], n: int) -> Iterator[str]:
    if not local:
        return
    batch = local.get("batch_size") or n or 1
    steps = (local.get("epochs") or 1) * max(1, ceil(n / batch))
    mode = {"train": "training", "eval": "inference"}.get(str(local.get("mode")), str(local.get("mode")))
    sent = "the gradient" if local.get("sends") == "gradient" else "the change of the parameters"
    yield f"{sent} of {steps} local {'step' if steps == 1 else 'steps'} in {mode} mode"


def _defense(record: AuditRecord) -> str:
    return f"defended by {record.defense.name}" if record.defense else "no defense"
