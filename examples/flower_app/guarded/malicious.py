"""A server that sends an imprint instead of the model in one round, and reads images off whatever comes back."""

import logging
from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from guarded.task import build, public, task
from invertigo.attacks.active import Imprint
from invertigo.federation import send
from invertigo.flower import read_arrays, write_arrays
from invertigo.types import (
    Knowledge,
    LocalTraining,
    Observation,
    Plant,
    RequirementError,
    ThreatLevel,
    Update,
    trainable,
)


class MaliciousOnce(FedAvg):
    """Federated averaging, but for one round."""

    def __init__(self, at: int, local: LocalTraining, batch_size: int) -> None:
        super().__init__()
        self.at, self.local, self.batch_size = at, local, batch_size
        self.attack, self.plant = Imprint(), None
        self.rebuilt: list[torch.Tensor] = []
        """Images read off the clients' updates."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """In that round, send the planted model."""
        if server_round == self.at:
            self.plant = self._planted(arrays)
            arrays = write_arrays(send(self._task(arrays), self.plant).model.state_dict())
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """In that round, read the updates and leave the global model as it was."""
        replies = list(replies)
        aggregated = super().aggregate_train(server_round, replies)
        if server_round != self.at:
            return aggregated
        for reply in replies:
            if reply.has_content():
                self.rebuilt.append(self._read(read_arrays(reply.content["arrays"])))
        count = sum(map(len, self.rebuilt))
        logging.getLogger("flwr").info("the malicious server read %d images off its clients' updates", count)
        return None, None

    def _task(self, arrays: ArrayRecord):
        model = build()
        model.load_state_dict(read_arrays(arrays))
        return task(model)

    def _planted(self, arrays: ArrayRecord) -> Plant:
        self.start = self._task(arrays)
        return self.attack.plant(
            self.start, self.local, public=public(), num_examples=self.batch_size, clients=1,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    def _read(self, returned: dict[str, torch.Tensor]) -> torch.Tensor:
        sent = send(self.start, self.plant)
        before = trainable(sent.model)
        update = Update({name: returned[name] - before[name] for name in before}, "difference")
        known = Knowledge(level=ThreatLevel.MALICIOUS, num_examples=self.batch_size, plant=self.plant)
        seen = Observation(sent, before, {}, update, self.local, known)
        try:
            return self.attack.reconstruct(seen, generator=torch.Generator().manual_seed(0)).fields["images"]
        except RequirementError:  # nothing can be told apart, as when a defense has put noise on the update
            return torch.empty(0)
