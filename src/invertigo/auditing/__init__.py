"""The audit: which attacks a threat model allows, run inside a budget, and the verdict on them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invertigo.auditing.auditor import audit
    from invertigo.auditing.examination import doctor
    from invertigo.auditing.result import Audit
    from invertigo.auditing.scenario import Scenario, load_scenario, scenario_names
    from invertigo.auditing.session import Stage

_HOMES = {
    "Audit": "result",
    "Scenario": "scenario",
    "Stage": "session",
    "audit": "auditor",
    "doctor": "examination",
    "load_scenario": "scenario",
    "scenario_names": "scenario",
}
__all__ = ["Audit", "Scenario", "Stage", "audit", "doctor", "load_scenario", "scenario_names"]


def __getattr__(name: str) -> Any:
    """Import at first use, so that records are read back without importing torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'invertigo.auditing' has no attribute '{name}'")
    value = getattr(import_module(f"invertigo.auditing.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
