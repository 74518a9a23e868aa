"""A mod of a Flower client app that looks at what the server sent before any other code does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flwr.app import Context, Error, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

from invertigo.flower.memory import recall, remember
from invertigo.flower.records import model_record, read_arrays
from invertigo.flower.settings import GuardSettings, RefuseAt
from invertigo.guards import Budget, Inspector
from invertigo.guards.inspector import joined
from invertigo.types import (
    CorruptFileError,
    Finding,
    Gate,
    GuardVerdict,
    InvertigoError,
    Local,
    MismatchError,
    Received,
    Update,
    check_fits,
    trainable,
)

Client = Callable[[Message, Context], Local]
"""Builds what the client holds in this round, as Flower calls its functions: from the message and the context."""
Report = Callable[[GuardVerdict, Context], None]
NOTHING_SAID = "This client does not take part in this round."
logger = logging.getLogger("flwr")


@dataclass(frozen=True)
class ServerGuard:
    """Inspects the received model at three gates: before it is loaded, trained on, and answered.

    Put it first among the mods, so that it sees what really arrives and what really leaves, defenses included. A
    refusal is an error reply, which Flower's strategies count as a failure. The third gate compares what was sent with
    what the client returns. A message to train without a model is refused: there would be nothing to look at. Messages
    to evaluate pass the first gate only, since no update answers them; queries pass.

    Rounds are counted here, as those in which this node was asked to train. The server's own numbers are not believed:
    with a leap to round 10^9 it could stretch the time over which a trend is judged, and pass off a jump as a drift.

    What is given here, the run's configuration can make stricter; see `GuardSettings`.

    Args:
        client: builds the client's task, a probe batch and its training recipe from the message and the context. The
            best probe is what this round trains on; without one, guards that need it are skipped.
        inspector: which guards, their budget of false alarms, and what was declared beforehand.
        refuse_at: refuse what the inspector blocks, or also what it warns of; "never" only writes down.
        tell_server: send the reason along, which tells a malicious server what to avoid next time.
        arrays: name of the array record that holds the model, where a message has several.
        report: called on the client with the verdict on each round of training, and on a model that may not even be
            evaluated; to store or to show it.
    """

    client: Client
    inspector: Inspector = field(default_factory=Inspector)
    refuse_at: RefuseAt = "block"
    tell_server: bool = False
    arrays: str | None = None
    report: Report | None = None

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """See Flower's mods."""
        kind = message.metadata.message_type.split(".")[0]
        if kind == MessageType.QUERY:
            return call_next(message, context)
        training = kind == MessageType.TRAIN
        settings, history = self._settings(context), recall(context)
        round = history.visits[-1].round + 1 if history.visits else 1
        local = replace(self.client(message, context), round=round, update=None)
        received, verdict = None, GuardVerdict("pass", round=round)
        try:
            received = Received(read_arrays(model_record(message.content, self.arrays)[1]))
            gates: tuple[Gate, ...] = ("load", "train") if training else ("load",)
            verdict = self._inspector(settings).inspect(received, history, local, gates)
        except (CorruptFileError, MismatchError) as error:
            verdict = _unreadable(error, "load", verdict)
        reply = None if settings.refuses(verdict.decision) else call_next(message, context)
        if training and reply is not None and not reply.has_error() and received is not None:
            try:
                local = replace(local, update=difference(received, reply, local, self.arrays))
                sending = self._inspector(settings).inspect(received, history, local, ("send",))
                verdict = joined(verdict, sending)
            except InvertigoError as error:
                verdict = joined(verdict, _unreadable(error, "send", verdict))
        if training:
            remember(context, history.add(verdict))
        if training or verdict.decision != "pass":
            self._tell(verdict, message, context)
        if reply is not None and (reply.has_error() or not settings.refuses(verdict.decision)):
            return reply
        return refusal(message, verdict.summary() if settings.tell_server else NOTHING_SAID)

    def _settings(self, context: Context) -> GuardSettings:
        least = GuardSettings(
            refuse_at=self.refuse_at,
            tell_server=self.tell_server,
            budget_block=self.inspector.budget.block,
            budget_warn=self.inspector.budget.warn,
            examples=self.inspector.examples,
            looks=",".join(sorted(self.inspector.declared.looks)),
        )
        settings, ignored = least.under(context.run_config, context.node_config)
        if ignored:
            logger.warning(
                "invertigo: The run asks for a milder guard (%s), which only this node's own configuration may allow "
                "(flower-supernode --node-config). It is not obeyed.",
                ", ".join(ignored),
            )
        return settings

    def _inspector(self, settings: GuardSettings) -> Inspector:
        return replace(
            self.inspector,
            budget=Budget(block=settings.budget_block, warn=settings.budget_warn),
            examples=settings.examples,
            declared=replace(self.inspector.declared, looks=settings.declared_looks),
        )

    def _tell(self, verdict: GuardVerdict, message: Message, context: Context) -> None:
        if self.report is not None:
            self.report(verdict, context)
        if verdict.decision != "pass":
            logger.warning(
                "invertigo: round %s here, %s of the server: %s", verdict.round, _told(message), verdict.summary()
            )


def refusal(message: Message, reason: str) -> Message:
    """An error in place of an update."""
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


def difference(received: Received, reply: Message, local: Local, arrays: str | None = None) -> Update:
    """What the client is about to give away: returned minus received parameters, and its buffers.

    Raises: MismatchError when the reply is not of the client's model.
    """
    returned = read_arrays(model_record(reply.content, arrays)[1])
    names = [name for name in trainable(local.task.model) if name in received.tensors]
    check_fits({k: v for k, v in returned.items() if k in names}, {k: received.tensors[k] for k in names}, "reply")
    buffers = {name: tensor for name, tensor in returned.items() if name in dict(local.task.model.named_buffers())}
    return Update({k: returned[k] - received.tensors[k] for k in names}, "difference", buffers or None)


def _told(message: Message) -> int | str:
    """The server's number of the round, to find it again in logs. Nothing is computed with it: it may be any number."""
    told = [config.get("server-round") for config in message.content.config_records.values()]
    return next((number for number in told if isinstance(number, int)), "unnumbered")


def _unreadable(error: InvertigoError, gate: Gate, verdict: GuardVerdict) -> GuardVerdict:
    action = "Do not load it. Ask the server's operator for the model that was agreed on."
    if gate == "send":
        action = "Do not send it. The client's own code returns something else than a trained model."
    found = Finding("readable", gate, "defect", 1.0, None, str(error), action, alarming=True)
    return replace(GuardVerdict("block", (found,), (found,)), round=verdict.round, fingerprint=verdict.fingerprint)
