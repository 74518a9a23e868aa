"""Simulated clients: what somebody with this model, this recipe and this defense would send for public images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from invertigo.federation.functional import functional_update
from invertigo.types import AdversaryView, Observation

Tensors = Mapping[str, Tensor]


def simulated_updates(observation: Observation, fields: Tensors, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Updates (client, *layer) of clients with batches `fields` (client, batch, ...), as the adversary can make them.

    An adversary who knows the defense lets the simulated clients use it: its treatment of the batch with a fresh draw
    of its randomness, its treatment of the update, its noise, and its hidden entries. Call it inside `simulating`.
    """
    view = observation.knowledge.view
    count = len(next(iter(fields.values()))[0])
    simulate = functional_update(
        observation.task, observation.parameters, observation.buffers, observation.local, count
    )
    transform = None if view is None or view.draw is not None else view.transform

    def one(client: Tensors) -> dict[str, Tensor]:
        return simulate(client if transform is None else transform(client)).update

    if view is not None and view.draw is not None:
        fields = _redrawn(view.draw, fields, generator)
    updates = torch.func.vmap(one, randomness="different")(dict(fields))
    return as_received(view, updates, generator)


def as_received(view: AdversaryView | None, updates: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
    """Updates (client, *layer) after the defense's treatment of them, as far as `view` tells."""
    if view is None:
        return dict(updates)
    if view.surrogate is not None:
        updates = view.surrogate(updates)
    return seen_entries(view, {name: _noisy(view, name, tensor, generator) for name, tensor in updates.items()})


def seen_entries(view: AdversaryView | None, updates: Tensors) -> dict[str, Tensor]:
    """The same updates with hidden entries set to zero."""
    hidden = {} if view is None or view.visible is None else view.visible
    return {name: tensor * hidden[name].to(tensor) if name in hidden else tensor for name, tensor in updates.items()}


def _noisy(view: AdversaryView, name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    deviation = (view.noise_std or {}).get(name, 0.0)
    if not deviation:
        return tensor
    noise = torch.randn(tensor.shape, generator=generator, device=generator.device, dtype=tensor.dtype)
    return tensor + deviation * noise.to(tensor.device)


def _redrawn(
    draw: Callable[[Tensors, torch.Generator], Tensors], fields: Tensors, generator: torch.Generator
) -> dict[str, Tensor]:
    """Each client's own draw: a defense may mix the examples of one batch, but not those of two clients."""
    clients = len(next(iter(fields.values())))
    drawn = [draw({name: tensor[i] for name, tensor in fields.items()}, generator) for i in range(clients)]
    return {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
