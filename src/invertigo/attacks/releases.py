"""What several releases of one update tell together: their mean, and the one direction that all of them avoid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.attacks.classifier_loss import ClassifierLoss
from invertigo.types import Observation, Update

Tensors = Mapping[str, Tensor]
SPREAD = 0.3
"""A direction counts as avoided when the releases stretch this much less along it than along the next one."""


def mean_update(releases: Sequence[Update], *, keep_length: bool = False) -> Update:
    """The mean of the releases. Independent noise of standard deviation s is left with s / sqrt(number of releases).

    Args:
        keep_length: give each layer the mean length that it had in the releases, for defenses that keep it.
    """
    tensors: dict[str, Tensor] = {}
    for name, first in releases[0].tensors.items():
        each = torch.stack([release.tensors[name].double() for release in releases])
        mean = each.mean(0)
        if keep_length and mean.any():
            mean *= each.flatten(1).norm(dim=1).mean() / mean.norm()
        tensors[name] = mean.to(first)
    return Update(tensors, releases[0].kind, releases[0].buffers)


def avoided_direction(vectors: Float[Tensor, "release entry"], *, spare: int = 0) -> Float[Tensor, " entry"] | None:
    r"""The unit vector that is orthogonal to all `vectors`, up to its sign; None where there is no single one.

    It is the last right singular vector of the stacked unit vectors, and $d - 1$ independent ones leave it unique.

    Args:
        spare: how many more than $d - 1$ there must be. With at least one, vectors that are not orthogonal are noticed.
    """
    vectors = vectors[vectors.any(dim=1)].double()
    entries = vectors.shape[1]
    if entries < 2 or len(vectors) < entries - 1 + spare:
        return None
    _, values, directions = torch.linalg.svd(vectors / vectors.norm(dim=1, keepdim=True), full_matrices=True)
    last = values[entries - 1] if len(values) == entries else values.new_zeros(())
    unique = values[entries - 2] > 1e-6 * values[0] and last < SPREAD * values[entries - 2]
    return directions[-1] if unique else None


@dataclass(frozen=True)
class Recovered:
    """Layers of a true update by name; those in `unsigned` up to a sign, one for all tensors of a block.

    `guesses` are layers that the releases do not determine, as far as labels can be counted with them.
    """

    tensors: dict[str, Tensor]
    unsigned: tuple[tuple[str, ...], ...]
    guesses: dict[str, Tensor]


def from_orthogonal_releases(
    observation: Observation, releases: Sequence[Update], layout: Iterable[Sequence[str]], *, spare: int = 0
) -> Recovered:
    r"""Layers of the true update $g$, from releases with $\langle G_l, g_l\rangle = 0$ and $\lVert G_l\rVert =
    \lVert g_l\rVert$.

    A block of $d$ entries comes back from $d - 1$ releases: its direction is the one that all of them avoid, its
    length is theirs. The classifier's bias avoids what the loss forbids as well, so with cross-entropy it needs one
    release less, and the loss tells its sign; other signs stay open. This reading of orthogonal releases is ours.

    Args:
        layout: names of the tensors that were made orthogonal together, as one vector, in that order.
        spare: see `avoided_direction`.
    """
    loss = ClassifierLoss.of(observation)
    recovered: dict[str, Tensor] = {}
    unsigned: list[tuple[str, ...]] = []
    for block in layout:
        like = {name: observation.parameters[name] for name in block}
        whole = _whole(block, releases, spare, loss)
        if whole is None:
            continue
        parts = whole.split([tensor.numel() for tensor in like.values()])
        found = {name: part.reshape(like[name].shape) for name, part in zip(like, parts)}
        read = loss.sign(found[loss.bias_name]) if loss is not None and loss.bias_name in found else (1, False)
        if read is None:
            continue
        sign, certain = read
        recovered |= {name: (tensor * sign).to(like[name]) for name, tensor in found.items()}
        unsigned += [] if certain else [tuple(block)]
    return Recovered(recovered, tuple(unsigned), _guesses(loss, recovered, releases))


def _guesses(loss: ClassifierLoss | None, recovered: Tensors, releases: Sequence[Update]) -> dict[str, Tensor]:
    """The classifier's weight, where its bias is known and it is not."""
    bias, weight = (None, None) if loss is None else (loss.bias_name, loss.weight_name)
    if loss is None or bias is None or weight is None or bias not in recovered or weight in recovered:
        return {}
    length = max(release.tensors[weight].norm().item() for release in releases)
    guess = loss.weight_for(recovered[bias], length)
    return {} if guess is None else {weight: guess}


def _whole(block: Sequence[str], releases: Sequence[Update], spare: int, loss: ClassifierLoss | None) -> Tensor | None:
    """(entry,) the true update's block up to its sign, None where these releases do not determine it."""
    known = loss.forbidden if loss is not None and tuple(block) == (loss.bias_name,) else None
    given = len(releases) + (0 if known is None else len(known))
    if sum(releases[0].tensors[name].numel() for name in block) > given + 1 - spare:
        return None
    vectors = torch.stack([torch.cat([r.tensors[name].double().flatten() for name in block]) for r in releases])
    lengths = vectors.norm(dim=1)
    vectors = vectors if known is None else torch.cat([vectors, known.to(vectors)])
    direction = avoided_direction(vectors, spare=spare)
    return None if direction is None else direction * lengths[lengths > 0].mean()
