"""What a server (or secure aggregation) makes of several clients' updates: their weighted mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from invertigo.types import InvalidValueError, MismatchError, Update, check_fits


def aggregate(updates: Sequence[Update], weights: Sequence[float | int] | None = None) -> Update:
    r"""The weighted mean $\sum_i w_i u_i / \sum_i w_i$ of updates, shared buffers included (FedAvg).

    Args:
        weights: one non-negative number a client, usually its number of examples; equal without it.

    Integer buffers (BatchNorm's step counter) are averaged and rounded to the nearest integer.

    Raises: MismatchError when the updates differ in kind, names or shapes, or only some share buffers.

    Source: McMahan et al. (2017), Communication-Efficient Learning of Deep Networks from Decentralized Data, Alg. 1.
    """
    if not updates:
        raise InvalidValueError("There is no update to aggregate; pass at least one.")
    shares = _shares(weights, len(updates))
    kinds = {update.kind for update in updates}
    if len(kinds) > 1:
        raise MismatchError("Gradients and parameter differences cannot be averaged; let all clients send the same.")
    tensors = _mean([update.tensors for update in updates], shares, "update")
    return Update(tensors, updates[0].kind, _mean_buffers(updates, shares))


def _shares(weights: Sequence[float | int] | None, clients: int) -> list[float]:
    weights = [1.0] * clients if weights is None else [float(w) for w in weights]
    if len(weights) != clients:
        raise MismatchError(f"{len(weights)} weights were given for {clients} updates; pass one a client.")
    total = sum(weights)
    if not all(0 <= w < float("inf") for w in weights) or total <= 0:
        raise InvalidValueError(f"The weights {weights} must be finite, not negative, and not all zero.")
    return [w / total for w in weights]


def _mean_buffers(updates: Sequence[Update], shares: Sequence[float]) -> dict[str, Tensor] | None:
    shared = [update.buffers for update in updates if update.buffers is not None]
    if not shared:
        return None
    if len(shared) != len(updates):
        raise MismatchError(f"Only {len(shared)} of {len(updates)} clients share their buffers; let all or none do so.")
    return _mean(shared, shares, "set of buffers")


def _mean(clients: Sequence[Mapping[str, Tensor]], shares: Sequence[float], what: str) -> dict[str, Tensor]:
    for other in clients[1:]:
        check_fits(other, clients[0], what)
    return {name: _weighted([client[name] for client in clients], shares) for name in clients[0]}


def _weighted(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    if tensors[0].is_floating_point():
        return torch.stack([share * tensor for share, tensor in zip(shares, tensors)]).sum(0)
    mean = torch.stack([share * tensor.double() for share, tensor in zip(shares, tensors)]).sum(0)
    return mean.round().to(tensors[0].dtype)
