"""The order in which mods must stand, checked where it can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from invertigo.flower.defense import DefenseMod
from invertigo.flower.guard import ServerGuard
from invertigo.types import ConfigurationError

NAMES = {"secaggplus_mod": 0, "secagg_mod": 0, "fixedclipping_mod": 2, "adaptiveclipping_mod": 2, "LocalDpMod": 2}
WHY = {
    (0, 1): "it masks what leaves, and the guard would not see it",
    (0, 2): "it masks what leaves, which cannot be clipped afterwards",
    (0, 3): "it masks what leaves, which cannot be defended afterwards",
    (1, 2): "the guard must see what really leaves",
    (1, 3): "the guard must see what really leaves",
    (2, 3): "what it adds noise to, or promises to be of bounded norm, must not be changed afterwards",
}


def checked_mods(mods: Sequence[Any]) -> list[Any]:
    """The mods of a client app, the first outermost: masking, guard, Flower's clipping and noise, defense.

    `ClientApp(mods=checked_mods([secaggplus_mod, ServerGuard(...), LocalDpMod(...), DefenseMod(...)]))`. Other mods may
    stand anywhere.

    Raises: ConfigurationError for two that stand the wrong way round.
    """
    known = [(mod, place) for mod in mods if (place := _place(mod)) is not None]
    for position, (mod, place) in enumerate(known):
        for later, other in known[position + 1 :]:
            if other < place:
                raise ConfigurationError(
                    f"{_name(mod)} stands before {_name(later)} among the mods, but {_name(later)} has to come first: "
                    f"{WHY[other, place]}. The order is secaggplus_mod, ServerGuard, Flower's clipping or noise, "
                    "DefenseMod."
                )
    return list(mods)


def _place(mod: Any) -> int | None:
    if isinstance(mod, ServerGuard):
        return 1
    return 3 if isinstance(mod, DefenseMod) else NAMES.get(_name(mod))


def _name(mod: Any) -> str:
    return getattr(mod, "__name__", type(mod).__name__)
