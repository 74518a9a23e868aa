"""What a malicious server sends instead of an honest model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from invertigo.types.errors import InvalidValueError


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

    def drifted(self, honest: Mapping[str, Tensor], fraction: float) -> Plant:
        """The same plant, gone only `fraction` of the way from the `honest` tensors: one step of a slow drift.

        Raises: InvalidValueError unless the fraction lies in (0, 1].
        """
        if not 0 < fraction <= 1:
            raise InvalidValueError(f"A plant drifts by a fraction above 0 and at most 1 of the way, not {fraction}.")

        def between(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: honest[name].detach().lerp(tensor, fraction) for name, tensor in state.items()}

        return replace(self, state=between(self.state), per_client=tuple(between(own) for own in self.per_client))
