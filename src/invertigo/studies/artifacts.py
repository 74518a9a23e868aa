"""What cells share: a model trained once for all that attack it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from invertigo.studies.store import Store

_TRAINING_DATA = ("name", "split", "size", "limit", "grayscale", "public_count", "pool", "indices", "count", "skip")
_OF_ONE_BATCH = ("indices", "count", "skip")
"""Keys that do not change the public examples once a pool has been set aside."""
WEIGHTS = "weights.safetensors"


def victim_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of a cell's configuration that decides its trained model; None where nothing is trained."""
    if not config["model"]["trained_epochs"]:
        return None
    data = {name: config["data"][name] for name in _TRAINING_DATA}
    clients = config["adversary"]["clients"]
    if data["pool"]:
        data = {name: value for name, value in data.items() if name not in _OF_ONE_BATCH}
        clients = None
    same = {name: config[name] for name in ("model", "normalise", "dtype", "device", "seed")}
    prepared = {"defense": config["defense"]} if _prepares(config.get("defense")) else {}
    return {"artifact": "victim", "data": data, "clients": clients, **same, **prepared}


def _prepares(defense: str | Mapping[str, Any] | None) -> bool:
    """The defense changes the model before it is trained, so that its cells need a victim of their own."""
    if defense is None:
        return False
    from invertigo import defenses
    from invertigo.types import Defense

    name = defense if isinstance(defense, str) else defense["name"]
    return defenses.registry[name].prepare is not Defense.prepare


def train_victim(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of the cell's model after its training on public examples."""
    from invertigo.auditing.scenario import Scenario
    from invertigo.auditing.staging import stage

    state = stage(Scenario.model_validate(config)).task.model.state_dict()
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def make_artifact(store: Store, key: str, config: Mapping[str, Any]) -> None:
    """Train the victim `key` of a cell with `config` and keep it. Raises: OutputError."""
    from safetensors.torch import save

    store.keep_artifact(key, {WEIGHTS: save(train_victim(config))}, victim_of(config) or {})


def read_victim(store: Store, key: str) -> dict[str, Tensor]:
    """The trained state dict. Raises: CorruptFileError."""
    from safetensors.torch import load

    return load(store.artifact(key, WEIGHTS))
