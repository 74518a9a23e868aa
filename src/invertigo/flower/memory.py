"""What a mod remembers between messages: in the node's own state, which Flower keeps on the client."""

from __future__ import annotations

import logging

from flwr.app import ConfigRecord, Context

from invertigo.types import History

GUARD, DEFENSE = "invertigo.guard", "invertigo.defense"
DEFENSE_VERSION = 1
logger = logging.getLogger("flwr")


def recall(context: Context) -> History:
    """The guard's history on this node; one that cannot be read starts anew, with a warning."""
    record = context.state.get(GUARD)
    text = record.get("history") if isinstance(record, ConfigRecord) else None
    if record is not None and not isinstance(text, str):
        logger.warning("invertigo: The guard's history is no text, so it starts anew.")
    history, warning = History.loads(text if isinstance(text, str) else None)
    if warning:
        logger.warning("invertigo: %s", warning)
    return history


def remember(context: Context, history: History) -> None:
    """Keep the history for the next message."""
    context.state[GUARD] = ConfigRecord({"history": history.dumps()})


def releases_before(context: Context) -> int:
    """How many defended updates this node has sent in this run; a record of another version counts from zero anew."""
    record = context.state.get(DEFENSE)
    if not isinstance(record, ConfigRecord):
        return 0
    count = record.get("releases")
    if record.get("version") != DEFENSE_VERSION or not isinstance(count, int):
        logger.warning(
            "invertigo: The defense's count of releases is of another version (%s) and starts at 0: an epsilon that "
            "is reported from here on leaves earlier releases out.",
            record.get("version"),
        )
        return 0
    return count


def count_release(context: Context) -> None:
    """One more update has been sent."""
    context.state[DEFENSE] = ConfigRecord({"version": DEFENSE_VERSION, "releases": releases_before(context) + 1})
