"""What everybody who knows the recipe can take off an update again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from invertigo.types import Observation, Update


def penalty_removed(observation: Observation) -> Observation:
    r"""The same observation without the L2 term of its gradient, $u - \lambda\theta$: both are known to the adversary.

    Attacks then see a gradient of the examples alone. Unchanged where the term was clipped along, or is none.
    """
    local = observation.local
    clipped = local.clip_norm is not None or local.clip_value is not None
    if local.sends != "gradient" or not local.l2 or clipped:
        return observation

    def plain(update: Update) -> Update:
        held: Mapping[str, Tensor] = observation.parameters
        return replace(update, tensors={k: t - local.l2 * held[k] for k, t in update.tensors.items()})

    return replace(
        observation,
        update=plain(observation.update),
        local=replace(local, l2=0.0),
        releases=tuple(map(plain, observation.releases)),
    )
