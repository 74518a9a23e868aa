"""What a server sent and got back in one client's round, as it lies on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from invertigo.flower.settled import Settled, listed, settled
from invertigo.flower.wire import Wire
from invertigo.types import (
    CorruptFileError,
    Knowledge,
    LocalTraining,
    MismatchError,
    Observation,
    OutputError,
    Received,
    Task,
    Update,
    check_fits,
    duplicate,
    trainable,
)
from invertigo.types.untrusted import check_file

VERSION = 1


@dataclass(frozen=True)
class Exchange:
    """One client's round as the server saw it: the model it sent, the model that came back, and how much it weighs.

    Lists without names are numbered. `config` is what the server told the client beside the model, `wire` how the reply
    travelled, `said` what protection was announced, `run` the recording that it belongs to, and `recipe` how
    the clients train, as whoever recorded it said (`Recipe.dumps`).
    """

    round: int
    node: int
    sent: Mapping[str, Tensor]
    returned: Mapping[str, Tensor]
    num_examples: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    wire: Wire = field(default_factory=Wire)
    said: tuple[str, ...] = ()
    run: str = ""
    recipe: str = ""

    def save(self, folder: Path) -> Path:
        """Write it under `folder/round-NNNN/`, for its owner only; a model that was sent before is not stored again.

        Raises: OutputError.
        """
        place = folder / f"round-{self.round:04d}"
        name = f"sent-{Received(self.sent).fingerprint[:32]}.safetensors"
        model = next(folder.glob(f"round-*/{name}"), place / name)
        if not model.exists():
            write_tensors(model, self.sent, {})
        facts = {"version": VERSION, "round": self.round, "node": self.node, "num_examples": self.num_examples}
        facts |= {
            "sent": f"{model.parent.name}/{model.name}",
            "recipe": self.recipe,
            "config": dict(self.config),
            "said": list(self.said),
            "run": self.run,
        }
        facts |= {"wire": self.wire.facts(), "order": list(self.returned), "sent_order": list(self.sent)}
        return write_tensors(place / f"node-{self.node}.safetensors", self.returned, {"invertigo": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> Exchange:
        """Raises: CorruptFileError when the file is no exchange of this version,"""
        returned, metadata = read_tensors(path)
        try:
            facts = json.loads(metadata["invertigo"])
            if facts["version"] != VERSION:
                raise ValueError(f"version {facts['version']}, this is version {VERSION}")
            *rounds, name = Path(facts["sent"]).parts[-2:]  # never out of this folder, whatever the file says
            sent, _ = read_tensors(path.parent.parent.joinpath(*(rounds or [path.parent.name]), name))
            return cls(
                int(facts["round"]),
                int(facts["node"]),
                _ordered(sent, facts.get("sent_order")),
                _ordered(returned, facts.get("order")),
                facts["num_examples"],
                dict(facts.get("config", {})),
                Wire.of(facts.get("wire", {})),
                tuple(map(str, facts.get("said", ()))),
                str(facts.get("run", "")),
                str(facts.get("recipe", "")),
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CorruptFileError(f"{path} was not written by invertigo.flower.Audited ({error}).") from error

    def observation(self, task: Task, local: LocalTraining, *, order: Sequence[str] | None = None) -> Observation:
        """The update as the server holds it. `task` and `local` say what the clients train and how.

        With `local.sends == "gradient"`, the client took one plain step of `local.learning_rate`, and the update is
        read as the gradient of that step; else as the difference of the parameters. What was not sent is taken from
        the task's model; what did not come back is no part of the update.

        Args:
            order: the model's names of lists without names, where several readings fit.

        Raises: MismatchError when the model is another than the exchange's, or the update was masked.
        """
        if self.wire.kind != "plaintext":
            raise MismatchError(
                f"The update of node {self.node} in round {self.round} travelled {self.wire.kind}, so the server "
                "cannot read it by itself. Audit the rounds whose updates it can read."
            )
        model = duplicate(task.model)
        came = settled(self.sent, model, casts="any", order=order)
        check_fits(came.tensors, model.state_dict(), "model that was sent")
        model.load_state_dict(dict(came.tensors))
        back = self._back(came, model, order)
        names = {k: t for k, t in trainable(model).items() if k in back.raw}
        wanted = names or trainable(model)
        check_fits({k: t for k, t in back.sent.items() if k in wanted or not names}, wanted, "model that came back")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
        moved = {k: back.tensors[k] - names[k] for k in names}
        lost = _rounding(names, moved)
        if local.sends == "gradient":
            moved = {k: -t / local.learning_rate for k, t in moved.items()}
        buffers = {k: t for k, t in back.sent.items() if k in dict(model.named_buffers())}
        return Observation(
            replace(task, model=model),
            {k: t.clone() for k, t in names.items()},
            {k: b.detach().clone() for k, b in model.named_buffers()},
            Update(moved, local.sends, buffers or None, rounding=lost),
            replace(local, shares_buffers=bool(buffers)),
            Knowledge(num_examples=self.num_examples),
        )

    def parts(self, task: Task, order: Sequence[str] | None = None) -> str:
        """Which of the model's entries did not travel; empty where all did."""
        model = task.model
        came = settled(self.sent, model, casts="any", order=order)
        back = self._back(came, model, order)
        trained = [name for name in trainable(model) if name not in back.raw]
        found = {"were not sent": came.rest, "are trained but did not come back": trained}
        return "; ".join(f"{listed(list(names))} {what}" for what, names in found.items() if names)

    def _back(self, came: Settled, model: nn.Module, order: Sequence[str] | None) -> Settled:
        if len(self.returned) == len(came.names):
            order = list(came.names.values())
        return settled(self.returned, model, casts="any", order=order)


def _rounding(before: Mapping[str, Tensor], moved: Mapping[str, Tensor]) -> float:
    """Digits that a difference of stored parameters has lost, relative to its norm."""
    held = sum((torch.finfo(t.dtype).eps / 2 * t.double().norm().item()) ** 2 for t in before.values()) ** 0.5
    norm = sum(t.double().norm().item() ** 2 for t in moved.values()) ** 0.5
    return held / max(norm, torch.finfo(torch.float64).tiny)


def _ordered(tensors: Mapping[str, Tensor], order: Sequence[str] | None) -> dict[str, Tensor]:
    """In the order of the message, which safetensors does not keep."""
    return dict(tensors) if order is None else {name: tensors[name] for name in order}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> Path:
    """Whole or not at all, for the owner only. Raises: OutputError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        for folder in reversed([one for one in path.parents if not one.exists()]):
            folder.mkdir(mode=0o700, exist_ok=True)
        packed = save({k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}, metadata or None)
        with os.fdopen(os.open(aside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(packed)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error.strerror or error}).") from error
    return path


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises: CorruptFileError."""
    check_file(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path} cannot be read as safetensors ({error}); nothing else is read.") from error
