"""A mod of a Flower client app that looks at what the server sent before any other code does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, Context, Error, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

from invertigo.flower.arrival import arrival, as_record
from invertigo.flower.casts import Casts
from invertigo.flower.leaving import Leaving, leaving
from invertigo.flower.memory import Layout, Unbuilt, recall, recall_layout, remember, remember_layout
from invertigo.flower.protocol import has_arrays, kind_of, masked, only_keys, trains
from invertigo.flower.records import model_record, read_arrays
from invertigo.flower.settings import GuardSettings, RefuseAt
from invertigo.flower.settled import Settled
from invertigo.guards import Budget, Inspector
from invertigo.guards.inspector import joined
from invertigo.types import (
    CorruptFileError,
    Finding,
    Gate,
    GuardVerdict,
    History,
    InvertigoError,
    Local,
    MismatchError,
)

Client = Callable[[Message, Context], Local]
"""Builds what the client holds in this round, as Flower calls its functions: from the message and the context."""
Report = Callable[[GuardVerdict, Context], None]
BLIND = (
    "the update was masked before the guard could see it: put secaggplus_mod before ServerGuard, "
    "mods=[secaggplus_mod, ServerGuard(...), ...]"
)
NOTHING_SAID = "This client does not take part in this round."
logger = logging.getLogger("flwr")


@dataclass(frozen=True)
class ServerGuard:
    """Inspects the received model at three gates: before it is loaded, trained on, and answered.

    Put it first among the mods, so that it sees what really arrives and what really leaves, defenses included; only
    `secaggplus_mod` comes before it, which hides what leaves. A refusal is an error reply, which Flower's strategies
    count as a failure. The third gate compares what was sent with what the client returns. A message to train without
    a model is refused: there would be nothing to look at. Stages of SecAgg+ that exchange keys pass. Messages to
    evaluate pass the first gate only, since no update answers them; queries pass.

    What arrives in another dtype is cast to the model's, and the client's code gets what was inspected. Where only a
    part of the model is sent (a head, adapters, everything but norm layers), the rest is the client's own.

    Rounds are counted here, as those in which this node was asked to train. The server's own numbers are not believed:
    with a leap to round 10^9 it could stretch the time over which a trend is judged, and pass off a jump as a drift.

    What is given here, the run's configuration can make stricter; see `GuardSettings`.

    Args:
        client: builds the client's task, a probe batch and its training recipe from the message and the context. The
            best probe is what this round trains on; without one, guards that need it are skipped. It is called for
            messages to train; for one to evaluate only before the first of these, and its failure then costs the look
            at names and shapes. Where the server sends a part, its model must hold the client's own rest.
        inspector: which guards, their budget of false alarms, and what was declared beforehand.
        refuse_at: refuse what the inspector blocks, or also what it warns of; "never" only writes down.
        tell_server: send the reason along, which tells a malicious server what to avoid next time.
        casts: what a change of dtype may cost; see `GuardSettings`.
        arrays: name of the array record that holds the model, where a message has several.
        order: the model's names of a list of arrays without names, where several readings fit.
        report: called on the client with the verdict on each round of training, and on a model that may not even be
            evaluated; to store or to show it.
    """

    client: Client
    inspector: Inspector = field(default_factory=Inspector)
    refuse_at: RefuseAt = "block"
    tell_server: bool = False
    arrays: str | None = None
    report: Report | None = None
    casts: Casts = "float32"
    order: Sequence[str] | None = None

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """See Flower's mods."""
        if trains(message) and not only_keys(message):
            return self._train(message, context, call_next)
        if kind_of(message) == MessageType.EVALUATE:
            return self._evaluate(message, context, call_next)
        reply = call_next(message, context)
        if reply.has_content() and has_arrays(reply.content):
            return self._unasked(message, reply, context)
        return reply

    def _train(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        settings, history = self._settings(context), recall(context)
        round = history.visits[-1].round + 1 if history.visits else 1
        local = replace(self.client(message, context), round=round, update=None)
        received, verdict = None, GuardVerdict("pass", round=round)
        try:
            received, verdict = self._arrived(message, local, settings, history, ("load", "train"))
        except (CorruptFileError, MismatchError) as error:
            verdict = _unreadable(error, "load", verdict)
        reply = None if settings.refuses(verdict.decision) else call_next(message, context)
        if reply is not None and not reply.has_error() and received is not None:
            verdict = self._left(received, reply, local, settings, history, verdict)
            remember_layout(context, local.task.model, list(received.names.values()))
        remember(context, history.add(verdict))
        self._tell(verdict, message, context)
        if reply is not None and (reply.has_error() or not settings.refuses(verdict.decision)):
            return reply
        return refusal(message, verdict.summary() if settings.tell_server else NOTHING_SAID)

    def _evaluate(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        settings, history = self._settings(context), recall(context)
        round = history.visits[-1].round + 1 if history.visits else 1
        verdict = GuardVerdict("pass", round=round)
        try:
            local = replace(self._known(message, context), round=round)
            _, verdict = self._arrived(message, local, settings, history, ("load",))
        except (CorruptFileError, MismatchError) as error:
            verdict = _unreadable(error, "load", verdict)
        if verdict.decision != "pass":
            self._tell(verdict, message, context)
        if not settings.refuses(verdict.decision):
            return call_next(message, context)
        return refusal(message, verdict.summary() if settings.tell_server else NOTHING_SAID)

    def _known(self, message: Message, context: Context) -> Local:
        """What a model to evaluate is compared with: the layout of the last one trained, or else the client's model."""
        layout = recall_layout(context)
        if layout is None:
            try:
                return replace(self.client(message, context), batch=None, update=None)
            except Exception as error:  # whatever the recipe of training misses in a message to evaluate
                logger.warning(
                    "invertigo: client() raised %s for a message to evaluate (%s), and no round was trained yet: its "
                    "arrays are looked at for readable and finite values only.", type(error).__name__, error,
                )  # fmt: skip
                layout = Layout(read_arrays(model_record(message.content, self.arrays)[1]))
        return Local(task=Unbuilt(layout))

    def _arrived(
        self, message: Message, local: Local, settings: GuardSettings, history: History, gates: tuple[Gate, ...]
    ) -> tuple[Settled, GuardVerdict]:
        name, record = model_record(message.content, self.arrays)
        model = local.task.model
        order = model.order if isinstance(model, Layout) and len(model.order) == len(record) else self.order
        received = arrival(record, model, casts=settings.allowed_casts, order=order)
        verdict = self._inspector(settings).inspect(received, history, local, gates)
        if received.changed:
            message.content[name] = as_record(received)  # what was inspected is what is trained on
        return received, noted(verdict, received.notes, "load")

    def _left(
        self,
        received: Settled,
        reply: Message,
        local: Local,
        settings: GuardSettings,
        history: History,
        verdict: GuardVerdict,
    ) -> GuardVerdict:
        if masked(reply):
            logger.warning("invertigo: %s.", BLIND)
            return replace(verdict, skipped={**verdict.skipped, "send": BLIND})
        try:
            found = leaving(received, reply, local.task.model, self.arrays)
            sending = self._inspector(settings).inspect(
                received, history, replace(local, update=found.update), ("send",)
            )
            if sending.drop and settings.refuse_at != "never" and not settings.refuses(sending.decision):
                reply.content[found.record] = _repaired(received, found, sending)
                logger.warning("invertigo: round %s here: rows that show single examples stay here.", verdict.round)
            return joined(verdict, noted(sending, found.notes, "send"))
        except InvertigoError as error:
            return joined(verdict, _unreadable(error, "send", verdict))

    def _unasked(self, message: Message, reply: Message, context: Context) -> Message:
        """Arrays in answer to a message that brought none: nobody asked for an update, and none can be examined."""
        settings, history = self._settings(context), recall(context)
        if not trains(message):
            logger.warning(
                "invertigo: the reply to a '%s' message holds arrays, which are neither examined nor defended%s.",
                message.metadata.message_type, ", after rounds of training" if history.visits else "",
            )  # fmt: skip
            return reply
        error = MismatchError("The reply to a message that exchanges keys holds arrays, although no model was sent.")
        verdict = _unreadable(
            error, "send", GuardVerdict("pass", round=history.visits[-1].round if history.visits else 0)
        )
        self._tell(verdict, message, context)
        if not settings.refuses(verdict.decision):
            return reply
        return refusal(message, verdict.summary() if settings.tell_server else NOTHING_SAID)

    def _settings(self, context: Context) -> GuardSettings:
        least = GuardSettings(
            refuse_at=self.refuse_at,
            tell_server=self.tell_server,
            budget_block=self.inspector.budget.block,
            budget_warn=self.inspector.budget.warn,
            examples=self.inspector.examples,
            casts=self.casts,
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


def _repaired(received: Settled, found: Leaving, verdict: GuardVerdict) -> ArrayRecord:
    """The reply's arrays with the received values in the places that would show more than an honest round does."""
    kept = verdict.repaired(found.update).tensors
    returned = found.returned.tensors
    sent = {n: returned[n].where(kept[n] == moved, received.tensors[n]) for n, moved in found.update.tensors.items()}
    return as_record(replace(found.returned, tensors={**returned, **sent}))


def refusal(message: Message, reason: str) -> Message:
    """An error in place of an update."""
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


def noted(verdict: GuardVerdict, notes: Sequence[str], gate: Gate) -> GuardVerdict:
    """With what was changed or left out on the way, as findings that alarm nobody."""
    for note in notes:
        logger.info("invertigo: %s.", note)
    found = tuple(Finding("reading", gate, "defect", 0.0, None, note, "", alarming=False) for note in notes)
    return replace(verdict, observed=(*verdict.observed, *found))


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
