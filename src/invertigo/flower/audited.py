"""A strategy that remembers what each client was sent and what it returned."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.compat.common.recorddict_compat import parameters_to_arrayrecord
from flwr.serverapp import Grid

from invertigo.flower.recording import Recorded, Recorder
from invertigo.flower.records import read_arrays

OWN = {"strategy", "recorder"}


class Audited:
    """Any strategy, with each (sent, returned) pair written to a folder as safetensors.

    It sees exactly what an honest-but-curious server sees. `audit_exchanges` reads the folder offline. The folder holds
    what clients return, and is as private as the data that can be rebuilt from it.

    It stands for the strategy in every other respect: its class, its attributes and its own `start`. Strategies of
    Flower's older API (`configure_fit`) are recorded too. See `Recorder` for the settings.

    Args:
        strategy: does everything else.
        folder: where rounds are stored.
    """

    def __init__(self, strategy: Any, folder: str | Path, **settings: Any) -> None:
        object.__setattr__(self, "strategy", strategy)
        object.__setattr__(self, "recorder", Recorder(folder, **settings))

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        """The strategy's, so that whoever asks what it is gets its answer."""
        return type(self.strategy)

    def __getattr__(self, name: str) -> Any:
        """The strategy's own."""
        if name in OWN:
            raise AttributeError(name)
        return getattr(self.strategy, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """The strategy's own."""
        setattr(self.strategy, name, value)

    def start(self, grid: Grid, *args: Any, **settings: Any) -> Any:
        """The strategy's own `start`, on a grid that is recorded."""
        recorded = Recorded.__new__(Recorded)
        recorded.grid, recorded.recorder = grid, self.recorder
        return self.strategy.start(recorded, *args, **settings)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's own, where another strategy drives this one."""
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self.recorder.ask(messages, round=server_round)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The strategy's own, where another strategy drives this one."""
        received = list(replies)
        self.recorder.answer(received)
        return self.strategy.aggregate_train(server_round, received)

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """The strategy's own, of the older API."""
        asked = self.strategy.configure_fit(
            server_round=server_round, parameters=parameters, client_manager=client_manager
        )
        if (server_round - 1) % self.recorder.every == 0:
            for proxy, instructions in asked:
                tensors = read_arrays(parameters_to_arrayrecord(instructions.parameters, keep_input=True))
                self.recorder.sent(server_round, _number(proxy), tensors, dict(instructions.config))
        return asked

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """The strategy's own, of the older API."""
        for proxy, result in results:
            record = parameters_to_arrayrecord(result.parameters, keep_input=True)
            self.recorder.returned(_number(proxy), record, result.num_examples)
        return self.strategy.aggregate_fit(server_round, results, failures)


def _number(proxy: Any) -> int:
    """A proxy's node; older proxies have a name only."""
    node = getattr(proxy, "node_id", None)
    return int(node) if node is not None else int(str(proxy.cid), 36)
