"""A small federation: what a node holds, an app around it, and a server's messages."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from invertigo import Batch, Images, LocalTraining
from invertigo.flower import InProcessGrid
from invertigo.types import Local, Task

SHAPE = (1, 8, 8)


def network(seed: int = 0) -> nn.Module:
    from invertigo import models

    generator = torch.Generator().manual_seed(seed)
    return models.build("mlp", input_shape=SHAPE, num_classes=4, hidden=(64, 32), generator=generator)


def examples(count: int = 32, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch({"images": torch.rand(count, *SHAPE, generator=generator), "labels": torch.arange(count) % 4})


@dataclass
class Node:
    """What the nodes hold, and how often their training code ran."""

    model: nn.Module = field(default_factory=network)
    batch: Batch = field(default_factory=examples)
    trained: int = 0

    def local(self, message, context) -> Local:
        task = Task(self.model, cross_entropy, Images(shape=SHAPE), 4)
        return Local(task=task, batch=self.batch, training=LocalTraining(sends="difference", learning_rate=0.1))

    def step(self, message, context) -> Message:
        self.trained += 1
        # As many apps do, and the guard must have read the record before: it is empty afterwards.
        self.model.load_state_dict(message.content["arrays"].to_torch_state_dict(keep_input=False))
        self.model.zero_grad()
        cross_entropy(self.model(self.batch["images"]), self.batch["labels"]).backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter -= 0.1 * parameter.grad
        metrics = MetricRecord({"num-examples": len(self.batch)})
        return Message(
            RecordDict({"arrays": ArrayRecord(self.model.state_dict()), "metrics": metrics}), reply_to=message
        )

    def app(self, *mods, step=None) -> ClientApp:
        app = ClientApp(mods=list(mods))
        app.train()(step or self.step)
        told = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
        app.evaluate()(lambda message, context: Message(told, reply_to=message))
        app.query()(lambda message, context: Message(RecordDict(), reply_to=message))
        return app


def ask(grid: InProcessGrid, content, *, round: int = 1, kind: str = "train") -> Message:
    """Send one model (a state dict or a record) to the first node, and return its reply."""
    record = content if isinstance(content, RecordDict) else RecordDict({"arrays": ArrayRecord(content)})
    record["config"] = ConfigRecord({"server-round": round})
    (reply,) = grid.send_and_receive([Message(record, next(iter(grid.contexts)), kind)])
    return reply


def planted(node: Node) -> dict[str, torch.Tensor]:
    """What a server with an imprint sends instead of the node's model."""
    from invertigo.attacks.active import Imprint
    from invertigo.federation import send

    task = node.local(None, None).task
    plant = Imprint().plant(
        task, LocalTraining(sends="difference", learning_rate=0.1), public=examples(200, 7), num_examples=32, clients=1,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    return send(task, plant).model.state_dict()
