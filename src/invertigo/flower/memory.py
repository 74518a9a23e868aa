"""What a mod remembers between messages: in the node's own state, which Flower keeps on the client."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import torch
from flwr.app import ConfigRecord, Context
from torch import Tensor, nn

from invertigo.types import History, Task

GUARD, DEFENSE, LAYOUT = "invertigo.guard", "invertigo.defense", "invertigo.layout"
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


class Layout(nn.Module):
    """Stands for a model of which only names, shapes and dtypes are known. `order` is that of a list without names."""

    def __init__(self, tensors: dict[str, Tensor], order: Sequence[str] = ()) -> None:
        super().__init__()
        self.held, self.order = tensors, tuple(order)

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        """Zeros in the place of values."""
        return dict(self.held)


class Unbuilt(Task):
    """The task of a client that was not asked for it: enough to look at what may be loaded, and nothing else."""

    def __init__(self, layout: Layout) -> None:
        object.__setattr__(self, "model", layout)


def recall_layout(context: Context) -> Layout | None:
    """The layout of the model that this node trains, from its last round; None before the first."""
    record = context.state.get(LAYOUT)
    try:
        held = json.loads(str(record["layout"]))  # type: ignore[index]
        entries = {
            str(name): torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
            for name, (shape, dtype) in held["entries"].items()
        }
        return Layout(entries, [str(name) for name in held["order"]])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        return None


def remember_layout(context: Context, model: nn.Module, order: Sequence[str]) -> None:
    """Keep it, so that a model to evaluate can be looked at without building the client's."""
    entries = {n: (list(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in model.state_dict().items()}
    context.state[LAYOUT] = ConfigRecord({"layout": json.dumps({"entries": entries, "order": list(order)})})


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
