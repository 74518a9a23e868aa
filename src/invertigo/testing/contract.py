"""What a broken contract raises."""

from __future__ import annotations

from invertigo.types import InvertigoError


class ContractError(InvertigoError, AssertionError):
    """An attack or a domain that does not do what every other one does. Test runners show it as a failure."""


def demand(kept: object, message: str) -> None:
    """Raise ContractError with `message` unless `kept`."""
    if not kept:
        raise ContractError(message)
