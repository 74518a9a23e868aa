"""What a malicious server sends instead of an honest model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Plant:
    """Crafted parameters and buffers, and what the server notes down to read the update back.

    `state[name]` replaces that parameter or buffer of the model; names left out stay honest. `per_client[i]` replaces
    further entries for client `i` alone, where the server sends different models to different clients. `memo` never
    leaves the server.
    """

    attack: str
    state: Mapping[str, Tensor]
    memo: Mapping[str, Tensor] = field(default_factory=dict)
    per_client: tuple[Mapping[str, Tensor], ...] = ()
    notes: tuple[str, ...] = ()

    def for_client(self, client: int) -> dict[str, Tensor]:
        """Everything that is replaced in the model that `client` receives."""
        own = self.per_client[client] if client < len(self.per_client) else {}
        return {**self.state, **own}
