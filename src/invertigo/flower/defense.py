"""A mod of a Flower client app that applies a registered defense to the update before it leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from torch import Tensor

from invertigo.defenses import make
from invertigo.federation.defended import fresh_generator, trace
from invertigo.flower.arrival import as_record
from invertigo.flower.leaving import Leaving, leaving
from invertigo.flower.memory import count_release, releases_before
from invertigo.flower.protocol import of_secure_aggregation, trains
from invertigo.flower.records import model_record, read_arrays
from invertigo.flower.sections import keys_of
from invertigo.flower.settled import settled
from invertigo.types import (
    Batch,
    ConfigurationError,
    Defense,
    DefenseTrace,
    InvalidValueError,
    Local,
    Step,
    check_fits,
)

UNSEEN = Batch({"unseen": torch.zeros(1)})
"""Stands for the local batch, which a mod does not see."""
TRAINING = {
    "prepare": "it changes the model itself, which all clients and the server must do before the first round",
    "on_batch": "it changes the examples that each local step trains on",
    "on_gradient": "it changes the gradient of each local step",
}
logger = logging.getLogger("flwr")


class DefenseMod:
    """Returned minus received parameters go through the defense's `on_update`; the reply carries the received ones plus
    what came out. Everything else in the reply (buffers, metrics) leaves as it is. It comes before the update is
    masked: after `secaggplus_mod` in the list of mods.

    A mod sees messages, not training: a defense that works inside the training step is refused, with the reason.
    Without a defense given here, `defense.name` and its settings as `defense.<setting>` are read, for each message
    anew, from the node's configuration or else from the run's. The run's configuration may come from the server.

    Args:
        client: builds the client's task from the message and the context: its model says which arrays are parameters.
        defense: a registered name with its `settings`, or a defense.
        arrays: name of the array record that holds the model, where a message has several.
        report: called on the client with what the defense did to each reply, measured.
        generator: of the defense's randomness; without it, the operating system seeds one for each reply.
        order: the model's names of a list of arrays without names, where several readings fit.

    Raises: ConfigurationError for a defense that works inside the training step, at construction or at the first
        message; UnknownNameError for a name that is not registered.
    """

    def __init__(
        self,
        client: Callable[[Message, Context], Local],
        defense: str | Defense | None = None,
        *,
        arrays: str | None = None,
        report: Callable[[DefenseTrace, Context], None] | None = None,
        generator: torch.Generator | None = None,
        order: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        self.client, self.arrays, self.report, self.generator = client, arrays, report, generator
        self.order = order
        if defense is None and settings:
            raise ConfigurationError(f"Settings {sorted(settings)} were given, but no defense; name it.")
        self.defense = None if defense is None else fitting(make(defense, **settings))

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """See Flower's mods."""
        if not trains(message):
            return call_next(message, context)
        if of_secure_aggregation(message):
            raise ConfigurationError(
                "DefenseMod stands before secaggplus_mod, which would mask the update before the defense could work on "
                "it. Turn them round: mods=[secaggplus_mod, ServerGuard(...), DefenseMod(...)]."
            )
        # Both before the client's code runs: it may consume the record, and must not train in vain.
        received = read_arrays(model_record(message.content, self.arrays)[1])
        defense = self.defense or configured(context)
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        local = self.client(message, context)
        came = settled(received, local.task.model, casts="any", order=self.order)
        left = leaving(came, reply, local.task.model, self.arrays)
        sent = self._defended(defense, came.tensors, left, local, context)
        reply.content[left.record] = as_record(replace(left.returned, tensors={**left.returned.tensors, **sent}))
        count_release(context)
        return reply

    def _defended(
        self, defense: Defense, received: Mapping[str, Tensor], left: Leaving, local: Local, context: Context
    ) -> dict[str, Tensor]:
        raw, facts = dict(left.update.tensors), {}
        step = Step(
            task=local.task,
            model=local.task.model,
            batch=UNSEEN,
            local=local.training,
            number=0,
            round=releases_before(context),
            generator=self.generator or fresh_generator(torch.device("cpu")),
            per_example=_unseen,
            loss=_unseen,
            facts=facts,
        )
        update = dict(defense.on_update(raw, step))
        check_fits(update, raw, f"update that defense '{defense.name}' returned")
        did = trace(defense.name, raw, update, bytes=defense.wire_bytes(update), facts=facts)
        if self.report is not None:
            self.report(did, context)
        if did.undefended:
            logger.warning("invertigo: The defense '%s' left this update as it was.", defense.name)
        for note in left.notes:
            logger.warning("invertigo: beside the defended update, %s.", note)
        return {k: received[k] + update[k].to(received[k]) for k in update}


def configured(context: Context) -> Defense:
    """The defense that the node's configuration names, or else the run's.

    Raises: ConfigurationError when neither names one: a mod that silently does nothing would be taken for protection.
    """
    for config in (context.node_config, context.run_config):
        settings = keys_of(config, "defense")
        if "name" in settings:
            name = str(settings.pop("name"))
            return fitting(make(name, **{key.replace("-", "_"): value for key, value in settings.items()}))
    raise ConfigurationError(
        "DefenseMod was given no defense, and neither the node's nor the run's configuration names one. Pass a name, "
        "or set defense.name (for example in [tool.flwr.app.config])."
    )


def fitting(defense: Defense) -> Defense:
    """The defense, if it works on finished updates alone. Raises: ConfigurationError."""
    for hook, why in TRAINING.items():
        if getattr(type(defense), hook, None) is not getattr(Defense, hook):
            raise ConfigurationError(
                f"The defense '{defense.name}' cannot run as a mod of a Flower app: {why} (`{hook}`), and a mod sees "
                "only the finished update. Train with invertigo.federation.train_locally(task, batch, local, "
                f"defense=make('{defense.name}')) inside the client's train function instead."
            )
    if getattr(defense, "error_feedback", False):
        raise ConfigurationError(
            f"The defense '{defense.name}' with error_feedback=True keeps what it left out in memory, but Flower runs "
            "each message in a process of its own. Set error_feedback=False."
        )
    return defense


def _unseen(*_: Any) -> NoReturn:
    raise InvalidValueError("This defense asks for the client's examples, which a mod of a Flower app does not see.")
