"""A grid that keeps what crosses it: each model that was sent for training, and what each client returned."""

from __future__ import annotations

import io
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from invertigo.flower.exchange import Exchange, write_tensors
from invertigo.flower.offline import truth_path
from invertigo.flower.protocol import MASKED, SECAGG, has_arrays, trains
from invertigo.flower.recipe import Recipe
from invertigo.flower.records import model_record, read_arrays
from invertigo.flower.wire import Wire, announced, entropy, spread
from invertigo.types import Batch, CorruptFileError, InvalidValueError, LocalTraining, MismatchError, OutputError

MODULUS = "mod_range"
logger = logging.getLogger("flwr")


@dataclass
class _Asked:
    """A message to train that has not been answered yet."""

    round: int
    node: int
    sent: Mapping[str, Tensor]
    config: Mapping[str, Any]
    name: str = ""


class Recorder:
    """Writes (sent, returned) pairs into a folder of its own. What it cannot read or write costs no round of training.

    Args:
        folder: where rounds are stored, as private as what can be rebuilt from them.
        every: store each so many-th round, from the first.
        arrays: name of the array record that holds the model, where a message has several.
        weighted_by: name of the metric in which clients say how many examples they trained on.
        recipe: how the clients train, for whoever audits the folder.
        said: what is announced to protect updates: "encryption", "secure_aggregation".
        truth: the private batch of a round and a node, which a simulation knows; it is stored beside what was sent.

    Raises: InvalidValueError.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int = 1,
        arrays: str | None = None,
        weighted_by: str = "num-examples",
        recipe: Recipe | LocalTraining | None = None,
        said: Iterable[str] = (),
        truth: Callable[[int, int], Batch | None] | None = None,
    ) -> None:
        if every < 1:
            raise InvalidValueError(f"every={every}; rounds are stored each so many-th time, at least every 1.")
        self.folder, self.every, self.arrays, self.weighted_by = Path(folder), every, arrays, weighted_by
        self.said, self.run, self.modulus = announced(said), secrets.token_hex(8), 0
        self.truth = truth
        self._asked: list[_Asked] = []
        self._rounds = 0
        declared = Recipe(recipe) if isinstance(recipe, LocalTraining) else recipe
        self.recipe = declared.dumps() if declared is not None else ""

    def ask(self, messages: Sequence[Message], *, round: int | None = None) -> list[_Asked | None]:
        """Note what each client is sent to train on; the content is read now, since it may be consumed."""
        read: dict[int, dict[str, Tensor]] = {}
        training = [m.has_content() and trains(m) and has_arrays(m.content) for m in messages]
        self._rounds += any(training)
        for message in messages:
            self._learn_modulus(message)
        return [self._ask(m, round, read) if trained else None for m, trained in zip(messages, training)]

    def _ask(self, message: Message, round: int | None, read: dict[int, dict[str, Tensor]]) -> _Asked | None:
        number = round if round is not None else _round_of(message, self._rounds)
        if (number - 1) % self.every:
            return None
        try:
            record = model_record(message.content, self.arrays)[1]
            if id(record) not in read:
                read[id(record)] = read_arrays(record)
        except (CorruptFileError, MismatchError) as error:
            logger.warning("invertigo: round %s is not recorded: %s", number, error)
            return None
        return self.sent(number, message.metadata.dst_node_id, read[id(record)], _config(message.content))

    def sent(self, round: int, node: int, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> _Asked:
        """One client was sent this. What it was sent in earlier rounds has not been answered, and will not be."""
        self._asked = [a for a in self._asked if a.node != node or a.round >= round]
        self._asked.append(_Asked(round, node, tensors, config))
        return self._asked[-1]

    def answer(self, replies: Iterable[Message]) -> None:
        """Store what came back for training."""
        for reply in (r for r in replies if trains(r)):
            asked = self._take(reply.metadata.src_node_id, reply.metadata.reply_to_message_id)
            if asked is None or reply.has_error():
                continue
            returned, wire = self._read(reply.content)
            self.store(asked, returned, self._count(reply.content), wire)

    def returned(self, node: int, record: ArrayRecord, count: int | None) -> None:
        """One client returned this."""
        asked = self._take(node, "")
        if asked is not None:
            tensors, wire = self._read(RecordDict({"arrays": record}))
            self.store(asked, tensors, count, wire)

    def store(self, asked: _Asked, returned: Mapping[str, Tensor], count: int | None, wire: Wire) -> None:
        """Write one pair; a full disk costs the record, not the round."""
        one = Exchange(
            asked.round, asked.node, asked.sent, returned, count, asked.config, wire, self.said, self.run, self.recipe
        )  # fmt: skip
        try:
            one.save(self.folder)
            known = None if self.truth is None else self.truth(one.round, one.node)
            if known is not None:
                write_tensors(truth_path(self.folder, one.round, one.node), dict(known.fields), {})
        except OutputError as error:
            logger.warning("invertigo: round %s of node %s is not recorded: %s", asked.round, asked.node, error)

    def _take(self, node: int, name: str) -> _Asked | None:
        named = [a for a in self._asked if a.name and a.name == name]
        found = named or [a for a in self._asked if a.node == node and not a.name]
        if not found:
            return None
        self._asked.remove(found[0])
        return found[0]

    def _read(self, content: RecordDict) -> tuple[dict[str, Tensor], Wire]:
        held = content.config_records.get(SECAGG, {}).get(MASKED)
        if isinstance(held, list):
            return {}, Wire("masked", entropy(b"".join(map(bytes, held))), self._spread(held))  # type: ignore[arg-type]
        try:
            return read_arrays(model_record(content, self.arrays)[1]), Wire()
        except (CorruptFileError, MismatchError):
            data = b"".join(array.data for record in content.array_records.values() for array in record.values())
            return {}, Wire("opaque", entropy(data))

    def _spread(self, held: Sequence[Any]) -> float | None:
        try:
            arrays = [np.load(io.BytesIO(part), allow_pickle=False) for part in held]
            values = torch.cat([torch.from_numpy(np.asarray(a, dtype=np.int64)).flatten() for a in arrays])
        except (ValueError, TypeError, EOFError, OSError):
            return None
        top = int(values.max()) if values.numel() else 0
        return spread(values, self.modulus or 1 << max(top, 1).bit_length())

    def _learn_modulus(self, message: Message) -> None:
        if message.has_content():
            told = message.content.config_records.get(SECAGG, {}).get(MODULUS)
            self.modulus = told if isinstance(told, int) and told > 1 else self.modulus

    def _count(self, content: RecordDict) -> int | None:
        keys = (self.weighted_by, self.weighted_by.replace("-", "_"))
        told = [m[key] for m in content.metric_records.values() for key in keys if key in m]
        return int(told[0]) if told and isinstance(told[0], int | float) and told[0] >= 1 else None


class Recorded(Grid):
    """Any grid, with what crosses it for training written to a folder; everything else is the grid's own.

    Whatever drives it is recorded: strategies with a `start` of their own, older server apps and their workflows, and
    SecAgg+, of which only is seen that updates were masked. See `Recorder` for the arguments.
    """

    def __init__(self, grid: Grid, folder: str | Path, **settings: Any) -> None:
        self.grid, self.recorder = grid, Recorder(folder, **settings)

    def __getattr__(self, name: str) -> Any:
        """The grid's own."""
        if name in ("grid", "recorder"):
            raise AttributeError(name)
        return getattr(self.grid, name)

    def serve(self, app: Any) -> Any:
        """An `InProcessGrid`'s own, with what the server app sends recorded."""
        return type(self.grid).serve(self, app)  # type: ignore[attr-defined]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | int | None = None) -> Iterable[Message]:
        """Replies of the grid, recorded on their way."""
        messages = list(messages)
        self.recorder.ask(messages)
        replies = list(self.grid.send_and_receive(messages, timeout=timeout))
        self.recorder.answer(replies)
        return replies

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """The grid's own."""
        messages = list(messages)
        asked = self.recorder.ask(messages)
        names = list(self.grid.push_messages(messages))
        for one, name in zip(asked, names):
            if one is not None:
                one.name = name
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The grid's own, recorded."""
        replies = list(self.grid.pull_messages(message_ids))
        self.recorder.answer(replies)
        return replies

    def get_node_ids(self) -> Iterable[int]:
        """The grid's own."""
        return self.grid.get_node_ids()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | int | None = None
    ) -> Message:
        """The grid's own."""
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def set_run(self, run: Any) -> None:
        """The grid's own."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """The grid's own."""
        return self.grid.run


def _round_of(message: Message, counted: int) -> int:
    told = [config.get("server-round") for config in message.content.config_records.values()]
    numbers = [number for number in told if isinstance(number, int)]
    group = message.metadata.group_id
    return numbers[0] if numbers else (int(group) if group.isdecimal() and int(group) > 0 else counted)


def _config(content: RecordDict) -> dict[str, Any]:
    plain = (bool, int, float, str)
    records = [config for name, config in content.config_records.items() if name != SECAGG]
    return {key: value for config in records for key, value in config.items() if isinstance(value, plain)}
