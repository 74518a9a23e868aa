"""How a client trains, said once: for its own training code, for its guard, and for whoever audits its rounds later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from invertigo.flower.sections import keys_of
from invertigo.types import (
    ConfigurationError,
    CorruptFileError,
    InvalidValueError,
    LocalTraining,
    ParameterGroup,
    did_you_mean,
)

VERSION = 1
SETTABLE = {
    "optimizer", "learning_rate", "momentum", "dampening", "nesterov", "weight_decay", "epochs", "batch_size", "mode",
    "sends", "shares_buffers", "l2", "proximal", "clip_norm", "clip_value",
}  # fmt: skip
SPELLINGS = {
    "lr": "learning_rate", "learning_rate": "learning_rate", "epochs": "epochs", "local_epochs": "epochs",
    "num_epochs": "epochs", "batch_size": "batch_size", "momentum": "momentum", "weight_decay": "weight_decay",
    "proximal_mu": "proximal",
}  # fmt: skip
"""What a round's own configuration may say, as Flower's examples and its FedProx spell it."""
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Recipe:
    """A client's local training. `under` says what a round's configuration (`lr`, `proximal-mu`) makes of it."""

    training: LocalTraining

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Recipe:
        """The recipe that `recipe.*` keys of a run's configuration declare, which clients and server both read.

        Raises: ConfigurationError for a key or a value that is not known, or when there is no such key.
        """
        held = {key.replace("-", "_"): value for key, value in keys_of(config, "recipe").items()}
        unknown = [key for key in held if key not in SETTABLE]
        if unknown or not held:
            known = ", ".join(sorted(key.replace("_", "-") for key in SETTABLE))
            what = f"There is no recipe.{unknown[0]}.{did_you_mean(unknown[0], sorted(SETTABLE))}" if unknown else ""
            raise ConfigurationError(f"{what or 'The configuration declares no recipe.*.'} Known: {known}.")
        try:
            return cls(LocalTraining(**{"sends": "difference", **held}))
        except (InvalidValueError, TypeError) as error:
            raise ConfigurationError(f"recipe.*: {error}") from error

    def under(self, config: Mapping[str, Any]) -> LocalTraining:
        """The training of one round, whose configuration has the last word on what it names."""
        said = {SPELLINGS[k]: v for key, v in config.items() if (k := key.lower().replace("-", "_")) in SPELLINGS}
        if self.training.sends == "gradient":  # one step on the whole batch, whatever its size
            said = {key: value for key, value in said.items() if key not in ("epochs", "batch_size")}
        if "learning_rate" in said:
            said["learning_rates"] = ()
        try:
            return replace(self.training, **said)
        except TypeError as error:
            raise InvalidValueError(f"The round's configuration {dict(config)} is no recipe: {error}.") from error

    def optimizer(self, model: nn.Module, config: Mapping[str, Any] | None = None) -> torch.optim.Optimizer:
        """PyTorch's optimizer of the model's trainable parameters, for the client's training code."""
        local = self.under(config or {})
        settings: dict[str, Any] = {"lr": local.learning_rate, "weight_decay": local.weight_decay}
        if local.optimizer == "sgd":
            settings |= {"momentum": local.momentum, "dampening": local.dampening, "nesterov": local.nesterov}
        else:
            settings |= {"betas": local.betas, "eps": local.eps}
        if local.groups or local.learning_rates:
            raise InvalidValueError("An optimizer with groups or a schedule has to be built by the training code.")
        parameters = [p for p in model.parameters() if p.requires_grad]
        return OPTIMIZERS[local.optimizer](parameters, maximize=local.maximize, **settings)

    def dumps(self) -> str:
        """As JSON, with a version."""
        return json.dumps({"version": VERSION, "training": asdict(self.training)})

    @classmethod
    def loads(cls, text: str) -> Recipe:
        """What `dumps` wrote. Raises: CorruptFileError."""
        try:
            held = json.loads(text)
            if held["version"] != VERSION:
                raise ValueError(f"version {held['version']}, this is version {VERSION}")
            groups = tuple(ParameterGroup(**_tuples(group)) for group in held["training"].pop("groups"))
            known = {field.name for field in fields(LocalTraining)}
            if not set(held["training"]) <= known:
                raise ValueError(f"unknown keys {sorted(set(held['training']) - known)}")
            return cls(LocalTraining(**_tuples(held["training"]), groups=groups))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidValueError) as error:
            raise CorruptFileError(f"This is no recipe that invertigo.flower wrote ({error}).") from error


def _tuples(held: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in held.items()}
