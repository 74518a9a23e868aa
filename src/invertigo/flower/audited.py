"""A strategy that remembers what each client was sent and what it returned."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from invertigo.flower.exchange import Exchange
from invertigo.flower.records import model_record, read_arrays
from invertigo.types import InvalidValueError


class Audited(Strategy):
    """Any strategy, with each (sent, returned) pair written to a folder as safetensors.

    It sees exactly what an honest-but-curious server sees. `audit_exchanges` reads the folder offline. The folder holds
    what clients return, and is as private as the data that can be rebuilt from it.

    Args:
        strategy: does everything else.
        folder: where rounds are stored.
        every: store each so many-th round, from the first.
        arrays: name of the array record that holds the model, where a message has several.
        weighted_by: name of the metric in which clients say how many examples they trained on.
    """

    def __init__(
        self,
        strategy: Strategy,
        folder: str | Path,
        *,
        every: int = 1,
        arrays: str | None = None,
        weighted_by: str = "num-examples",
    ) -> None:
        if every < 1:
            raise InvalidValueError(f"every={every}; rounds are stored each so many-th time, at least every 1.")
        self.strategy, self.folder, self.every = strategy, Path(folder), every
        self.arrays, self.weighted_by = arrays, weighted_by
        self._sent: dict[int, dict[str, Tensor]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose clients, and note what each is sent."""
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._sent = {}
        if (server_round - 1) % self.every == 0:
            read: dict[int, dict[str, Tensor]] = {}
            for message in messages:
                record = model_record(message.content, self.arrays)[1]
                read.setdefault(id(record), read_arrays(record))
                self._sent[message.metadata.dst_node_id] = read[id(record)]
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Store what came back, then let the strategy aggregate."""
        received = list(replies)
        for reply in received:
            sent = self._sent.get(reply.metadata.src_node_id)
            if sent is None or reply.has_error():
                continue
            returned = read_arrays(model_record(reply.content, self.arrays)[1])
            told = [m[self.weighted_by] for m in reply.content.metric_records.values() if self.weighted_by in m]
            count = int(told[0]) if told and isinstance(told[0], int | float) and told[0] >= 1 else None
            Exchange(server_round, reply.metadata.src_node_id, sent, returned, count).save(self.folder)
        self._sent = {}
        return self.strategy.aggregate_train(server_round, received)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's own."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The strategy's own."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """The strategy's own."""
        self.strategy.summary()
