"""What a reply would give away: the update in it, and what else it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from flwr.app import Message
from torch import Tensor, nn

from invertigo.flower.arrival import arrival
from invertigo.flower.records import model_record
from invertigo.flower.settled import Settled, listed
from invertigo.types import Update, check_fits, trainable


@dataclass(frozen=True)
class Leaving:
    """The model's part of a reply. `notes` say what leaves beside the update, or does not leave of it."""

    update: Update
    returned: Settled
    record: str
    notes: tuple[str, ...] = ()


def leaving(received: Settled, reply: Message, model: nn.Module, arrays: str | None = None) -> Leaving:
    """The difference between the returned and the received parameters, of those that are returned.

    A client that was sent a part may return more: the difference is then taken from its own model.

    Raises: MismatchError when the reply holds nothing of the client's model, or other shapes.
    """
    key, record = model_record(reply.content, arrays)
    order = list(received.names.values()) if len(record) == len(received.names) else None
    returned = arrival(record, model, casts="any", order=order)
    names = [name for name in trainable(model) if name in returned.raw]
    wanted = {name: received.tensors[name] for name in names or trainable(model) if name in received.tensors}
    check_fits({n: t for n, t in returned.sent.items() if not names or n in names}, wanted, "reply")
    moved = {name: returned.tensors[name] - received.tensors[name] for name in names}
    buffers = {name: tensor for name, tensor in returned.sent.items() if name in dict(model.named_buffers())}
    notes = tuple(_notes(received, returned, model, reply, key))
    return Leaving(Update(moved, "difference", buffers or None), returned, key, notes)


def _notes(received: Settled, returned: Settled, model: nn.Module, reply: Message, key: str) -> list[str]:
    own, parameters = model.state_dict(), dict(model.named_parameters())
    foreign = [name for name in returned.raw if name not in own]
    frozen = {n for n, p in parameters.items() if not p.requires_grad}
    moved = [n for n in returned.raw if n in frozen and _differ(returned.tensors, received.tensors, n)]
    more = [name for name in returned.raw if name in received.rest]
    others = [name for name, record in reply.content.array_records.items() if name != key and record]
    found = {
        "which are not of the client's model, leave unexamined": foreign,
        "which the client's task says are frozen, leave changed and unexamined": moved,
        "which the server did not send, leave as well": more,
        "which are other array records, leave unexamined": others,
    }
    return [f"{listed(names)}, {what}" for what, names in found.items() if names]


def _differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor], name: str) -> bool:
    return name in other and not torch.equal(one[name], other[name])
