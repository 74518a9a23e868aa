"""Flower: a guard and a defense as mods of a client app, a strategy whose rounds can be audited, and a grid in-process.

app = ClientApp(mods=[ServerGuard(client), DefenseMod(client, "clip", norm=1.0)])   # the first mod is the outermost
strategy = Audited(FedAvg(), "runs/rounds")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from invertigo.types.extras import require

if TYPE_CHECKING:
    from invertigo.flower.audited import Audited
    from invertigo.flower.defense import DefenseMod
    from invertigo.flower.exchange import Exchange
    from invertigo.flower.grid import InProcessGrid
    from invertigo.flower.guard import ServerGuard
    from invertigo.flower.mods import checked_mods
    from invertigo.flower.offline import audit_exchanges, exchanges
    from invertigo.flower.recipe import Recipe
    from invertigo.flower.recording import Recorded
    from invertigo.flower.records import read_arrays, write_arrays
    from invertigo.flower.settings import GuardSettings

_HOMES = {
    "Audited": "audited",
    "DefenseMod": "defense",
    "Exchange": "exchange",
    "GuardSettings": "settings",
    "InProcessGrid": "grid",
    "Recipe": "recipe",
    "Recorded": "recording",
    "ServerGuard": "guard",
    "audit_exchanges": "offline",
    "checked_mods": "mods",
    "exchanges": "offline",
    "read_arrays": "records",
    "write_arrays": "records",
}
WITHOUT_FLOWER = {"exchange", "offline", "recipe"}
__all__ = [
    "Audited",
    "DefenseMod",
    "Exchange",
    "GuardSettings",
    "InProcessGrid",
    "Recipe",
    "Recorded",
    "ServerGuard",
    "audit_exchanges",
    "checked_mods",
    "exchanges",
    "read_arrays",
    "write_arrays",
]


def __getattr__(name: str) -> Any:
    """Import at first use, so that what needs no Flower works without it, and its absence names the extra."""
    if name not in _HOMES:
        raise AttributeError(f"module 'invertigo.flower' has no attribute '{name}'")
    if _HOMES[name] not in WITHOUT_FLOWER:  # rounds that were stored are audited without Flower
        require("flwr", "flower")
    value = getattr(import_module(f"invertigo.flower.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
