"""What a malicious server sends to a client."""

from __future__ import annotations

from dataclasses import replace

import torch

from invertigo.types import MismatchError, Plant, Task, check_fits, duplicate


def send(task: Task, plant: Plant, client: int = 0) -> Task:
    """The task with a copy of its model that holds what the server planted for this client.

    Raises: MismatchError when the plant names tensors that the model does not have, or of another shape: a client
        loads parameters into its own architecture, so nothing else can be changed.
    """
    model = duplicate(task.model)
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    planted = plant.for_client(client)
    check_fits(planted, {name: own[name] for name in planted if name in own}, f"plant of '{plant.attack}'")
    if not planted:
        raise MismatchError(f"The plant of '{plant.attack}' changes nothing, so the server would be honest.")
    with torch.no_grad():
        for name, tensor in planted.items():
            own[name].copy_(tensor)
    return replace(task, model=model)
