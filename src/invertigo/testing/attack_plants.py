"""What a malicious server's attack plants."""

from __future__ import annotations

from typing import Any

import torch

from invertigo.testing import state
from invertigo.testing.cases import Case, bait
from invertigo.testing.contract import demand
from invertigo.testing.running import instance_of
from invertigo.types import Requirement


def check_plant(attack: Any, case: Case | None = None) -> None:
    """It names tensors of the model, of their shape and finite; the generator decides them; the model is left alone.

    An attack that needs no crafted model plants nothing, and there is nothing to check.
    """
    attack = instance_of(attack)
    if Requirement.CRAFTED_MODEL not in attack.requires:
        return
    client = bait()
    before = state.of_model(client.task.model) | state.of_process()
    planted = client.plant(attack)
    changed = state.changes(before, state.of_model(client.task.model) | state.of_process())
    demand(not changed, f"Attack '{attack.name}' changed {'; '.join(changed[:5])} while it planted.")
    demand(planted.attack == attack.name, f"The plant is signed '{planted.attack}', not '{attack.name}'.")
    own = {**dict(client.task.model.named_parameters()), **dict(client.task.model.named_buffers())}
    received = planted.for_client(0)
    demand(received, f"Attack '{attack.name}' plants nothing.")
    for name, tensor in received.items():
        demand(name in own, f"Attack '{attack.name}' plants '{name}', which the client's model does not have.")
        like = own[name]
        demand(tensor.shape == like.shape and tensor.dtype == like.dtype,
               f"'{name}' is planted as {tuple(tensor.shape)} {tensor.dtype}, but is {tuple(like.shape)} {like.dtype}.",
        )  # fmt: skip
        demand(torch.isfinite(tensor).all(), f"'{name}' is planted with NaN or Inf.")
        demand(not tensor.requires_grad, f"What is planted as '{name}' still requires a gradient; detach it.")
    with torch.random.fork_rng():
        torch.rand(7, generator=torch.default_generator)  # move the global random state on
        again = client.plant(attack)
    moved = [*state.changes(received, again.for_client(0)), *state.changes(planted.memo, again.memo)]
    demand(not moved, f"Attack '{attack.name}' plants another {moved[:5]} for the same generator.")
