"""What cells share: a model trained once for all that attack it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from invertigo.studies.store import Store

_OF_ONE_BATCH = ("indices", "count", "skip")
"""Keys that do not change the public examples once a pool has been set aside."""
_AFTERWARDS = frozenset(
    {"title", "description", "expect", "compare", "budget", "attacks", "adversary", "defense", "local", "utility"}
    | {"guarded", "decoys", "reader_epochs", "private"}
)
"""What is only read once the victim is trained. Whatever else a scenario may say, today or later, is the victim's."""
WEIGHTS = "weights.safetensors"


def victim_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The scenario that a cell's model is trained by; None where nothing is trained.

    It holds all that its training may read: `train_victim` gets this and nothing else, and its key is made of it.
    """
    if not config["model"]["trained_epochs"]:
        return None
    victim = {name: value for name, value in config.items() if name not in _AFTERWARDS}
    if config["data"]["pool"]:
        data = {name: value for name, value in config["data"].items() if name not in _OF_ONE_BATCH}
        victim["data"] = {**data, "count": 1}
    else:
        victim["adversary"] = {"clients": config["adversary"]["clients"]}
    return {**victim, "defense": config["defense"] if _prepares(config.get("defense")) else None}


def _prepares(defense: str | Mapping[str, Any] | None) -> bool:
    """The defense changes the model before it is trained, so that its cells need a victim of their own."""
    if defense is None:
        return False
    from invertigo import defenses
    from invertigo.types import Defense

    name = defense if isinstance(defense, str) else defense["name"]
    return defenses.registry[name].prepare is not Defense.prepare


def train_victim(victim: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of the model of `victim_of` after its training on public examples."""
    from invertigo.auditing.scenario import Scenario
    from invertigo.auditing.staging import stage

    state = stage(Scenario.model_validate(victim)).task.model.state_dict()
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def make_artifact(store: Store, key: str, config: Mapping[str, Any]) -> None:
    """Train the victim `key` of a cell with `config` and keep it. Raises: OutputError."""
    from safetensors.torch import save

    victim = victim_of(config) or {}
    store.keep_artifact(key, {WEIGHTS: save(train_victim(victim))}, victim)


def read_victim(store: Store, key: str) -> dict[str, Tensor]:
    """The trained state dict. Raises: CorruptFileError."""
    from safetensors.torch import load

    return load(store.artifact(key, WEIGHTS))
