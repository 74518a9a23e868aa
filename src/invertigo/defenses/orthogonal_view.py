"""What an adversary makes of releases that are orthogonal to the true update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from invertigo.attacks.classifier_loss import ClassifierLoss
from invertigo.attacks.releases import from_orthogonal_releases
from invertigo.defenses.orthogonal import Block
from invertigo.types import AdversaryView, Observation, Update

Tensors = Mapping[str, Tensor]


def bare_releases(
    observation: Observation, releases: Sequence[Update], *, after: int | None, search: bool
) -> list[Update]:
    """The releases that are true updates: those after the last protected round, and those that the loss allows.

    Args:
        after: number of protected rounds, None for all; releases are taken for rounds 0, 1, ...
        search: whether protected rounds may have released true updates.
    """
    late = list(releases) if after is None else list(releases[:after])
    bare = [] if after is None else list(releases[after:])
    loss = ClassifierLoss.of(observation) if search else None
    return bare if loss is None else [release for release in late if loss.allows(release)] + bare


def view_of_avoided_directions(
    observation: Observation, releases: Sequence[Update], layout: Sequence[Block], *, spare: int = 0
) -> AdversaryView:
    """Layers that the releases determine are matched, the others are not looked at; see `from_orthogonal_releases`."""
    if len(observation.local.steps(observation.num_examples or 1)) > 1:
        return AdversaryView("knows that every local step was orthogonal to its gradient, which their sum is not")
    found = from_orthogonal_releases(observation, releases, layout, spare=spare)
    tensors = dict(observation.update.tensors) | found.guesses | found.tensors
    return AdversaryView(
        f"knows that {len(releases)} releases avoid the direction of the gradient and keep its length: this determines "
        f"{len(found.tensors)} of {len(tensors)} layers; the others are ignored",
        update=Update(tensors, observation.update.kind, observation.update.buffers),
        visible={name: torch.zeros_like(t) for name, t in tensors.items() if name not in found.tensors},
        surrogate=_with_signs_of(found.tensors, found.unsigned) if found.unsigned else None,
    )


def _with_signs_of(known: Tensors, unsigned: Sequence[Block]) -> Callable[[Tensors], Tensors]:
    """A map of updates (restart, *layer): each unsigned block takes the sign that brings it nearer to `known`."""

    def surrogate(update: Tensors) -> Tensors:
        turned = dict(update)
        for block in unsigned:
            alike = torch.stack([(update[n].detach() * known[n]).flatten(1).sum(1) for n in block]).sum(0)
            sign = torch.where(alike < 0, -1.0, 1.0).to(alike)
            for name in block:
                turned[name] = update[name] * sign.reshape(-1, *[1] * known[name].ndim)
        return turned

    return surrogate
