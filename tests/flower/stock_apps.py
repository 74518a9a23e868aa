"""Client apps as Flower's examples write them, which know nothing of a guard: small models, whole rounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from small_federation import SHAPE, examples

from invertigo import Batch, Images, LocalTraining
from invertigo.types import Local, Task

RATE = 0.1


def cnn(seed: int = 0) -> nn.Module:
    """A CNN with BatchNorm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 4, 3, stride=2), bn=nn.BatchNorm2d(4), act=nn.ReLU(), flat=nn.Flatten(),
                fc=nn.Linear(36, 4),
            )
        )  # fmt: skip


def plain(seed: int = 0) -> nn.Module:
    """The same without BatchNorm."""
    model = cnn(seed)
    model.bn = nn.Identity()
    return model


def frozen(seed: int = 0) -> nn.Module:
    """The same with a head that is trained alone."""
    model = cnn(seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    return model


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter, named as peft names them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.base_layer = nn.Linear(64, 4).requires_grad_(False)
        for parameter in self.base_layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 8
        self.lora_A = nn.ModuleDict({"default": nn.Linear(64, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})
        self.lora_A["default"].weight.data = torch.randn(2, 64, generator=generator) / 8
        self.lora_B["default"].weight.data = torch.randn(4, 2, generator=generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return self.base_layer(flat) + self.lora_B["default"](self.lora_A["default"](flat))


def everything(model: nn.Module) -> dict[str, torch.Tensor]:
    return model.state_dict()


def head(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if k.startswith("fc.")}


def without_norms(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.startswith("bn.")}


def adapters(model: nn.Module) -> dict[str, torch.Tensor]:
    """As peft's `get_peft_model_state_dict` names them."""
    return {k.replace(".default", ""): v for k, v in model.state_dict().items() if "lora" in k}


@dataclass
class Stock:
    """A client that trains one epoch; `part` is what travels."""

    build: Callable[[], nn.Module] = cnn
    part: Callable[[nn.Module], dict[str, torch.Tensor]] = everything
    batch: Batch = field(default_factory=lambda: examples(16))
    seen: list[dict[str, torch.Tensor]] = field(default_factory=list)
    """What the training code was given."""
    asked: list[str] = field(default_factory=list)
    """Messages for which the mods asked what the client holds."""

    def local(self, message, context) -> Local:
        self.asked.append(message.metadata.message_type)
        task = Task(self.build(), cross_entropy, Images(shape=SHAPE), 4)
        return Local(task=task, batch=self.batch, training=LocalTraining(sends="difference", learning_rate=RATE))

    def fit(self, model: nn.Module) -> None:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
        optimizer.zero_grad()
        cross_entropy(model(self.batch["images"]), self.batch["labels"]).backward()
        optimizer.step()

    def app(self, *mods: Any) -> ClientApp:
        """In Flower's message API."""
        app = ClientApp(mods=list(mods))

        @app.train()
        def train(message, context):
            model = self.build()
            self.seen.append(message.content["arrays"].to_torch_state_dict())
            full = {
                n.replace("_A.w", "_A.default.w").replace("_B.w", "_B.default.w"): t for n, t in self.seen[-1].items()
            }
            model.load_state_dict(full, strict=False)
            self.fit(model)
            metrics = MetricRecord({"num-examples": len(self.batch), "train_loss": 0.5})
            return Message(RecordDict({"arrays": ArrayRecord(self.part(model)), "metrics": metrics}), reply_to=message)

        @app.evaluate()
        def evaluate(message, context):
            metrics = MetricRecord({"num-examples": len(self.batch), "eval_loss": 0.5})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

        return app

    def legacy(self, *mods: Any) -> ClientApp:
        """As a NumPyClient, whose arrays have no names."""
        return ClientApp(client_fn=lambda context: _Legacy(self).to_client(), mods=list(mods))


class _Legacy(NumPyClient):
    def __init__(self, stock: Stock) -> None:
        self.stock, self.model = stock, stock.build()

    def get_parameters(self, config):
        return [tensor.numpy() for tensor in self.stock.part(self.model).values()]

    def fit(self, parameters, config):
        names = self.stock.part(self.model)
        self.stock.seen.append({n: torch.as_tensor(p) for n, p in zip(names, parameters, strict=True)})
        self.model.load_state_dict(self.stock.seen[-1], strict=False)
        self.stock.fit(self.model)
        return self.get_parameters({}), len(self.stock.batch), {}

    def evaluate(self, parameters, config):
        return 0.5, len(self.stock.batch), {"accuracy": 0.5}
