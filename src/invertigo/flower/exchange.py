"""What a server sent and got back, stored round by round, and audited later without the server or its clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invertigo.auditing import Audit, audit
from invertigo.types import (
    Batch,
    CorruptFileError,
    InvalidValueError,
    Knowledge,
    LocalTraining,
    Observation,
    Received,
    Task,
    Update,
    check_fits,
    duplicate,
    trainable,
)

VERSION = 1


@dataclass(frozen=True)
class Exchange:
    """One client's round as the server saw it: the model it sent, the model that came back, and how much it weighs."""

    round: int
    node: int
    sent: Mapping[str, Tensor]
    returned: Mapping[str, Tensor]
    num_examples: int | None = None

    def save(self, folder: Path) -> Path:
        """Write it under `folder/round-NNNN/`; a model that several clients were sent is stored once."""
        place = folder / f"round-{self.round:04d}"
        place.mkdir(parents=True, exist_ok=True)
        model = place / f"sent-{Received(self.sent).fingerprint[:16]}.safetensors"
        if not model.exists():
            save_file({k: t.contiguous() for k, t in self.sent.items()}, str(model))
        path = place / f"node-{self.node}.safetensors"
        facts = {"version": VERSION, "round": self.round, "node": self.node, "num_examples": self.num_examples}
        metadata = {"invertigo": json.dumps({**facts, "sent": model.name})}
        save_file({k: t.contiguous() for k, t in self.returned.items()}, str(path), metadata=metadata)
        return path

    @classmethod
    def load(cls, path: Path) -> Exchange:
        """Raises: CorruptFileError when the file is no exchange of this version."""
        returned, metadata = _read(path)
        try:
            facts = json.loads(metadata["invertigo"])
            if facts["version"] != VERSION:
                raise ValueError(f"version {facts['version']}, this is version {VERSION}")
            sent, _ = _read(path.with_name(Path(facts["sent"]).name))
            return cls(int(facts["round"]), int(facts["node"]), sent, returned, facts["num_examples"])
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptFileError(f"{path} was not written by invertigo.flower.Audited ({error}).") from error

    def observation(self, task: Task, local: LocalTraining) -> Observation:
        """The update as the server holds it. `task` and `local` say what the clients train and how.

        With `local.sends == "gradient"`, the client took one plain step of `local.learning_rate`, and the update is
        read as the gradient of that step; else as the difference of the parameters.

        Raises: MismatchError when the model is another than the exchange's.
        """
        model = duplicate(task.model)
        check_fits(self.sent, model.state_dict(), "model that was sent")
        model.load_state_dict(dict(self.sent))
        names = trainable(model)
        check_fits({k: t for k, t in self.returned.items() if k in names}, names, "model that came back")
        moved = {k: self.returned[k] - names[k] for k in names}
        if local.sends == "gradient":
            moved = {k: -t / local.learning_rate for k, t in moved.items()}
        buffers = {k: t for k, t in self.returned.items() if k in dict(model.named_buffers())}
        return Observation(
            replace(task, model=model),
            names,
            {k: b.detach().clone() for k, b in model.named_buffers()},
            Update(moved, local.sends, buffers or None),
            replace(local, shares_buffers=bool(buffers)),
            Knowledge(num_examples=self.num_examples),
        )


def exchanges(folder: str | Path, *, round: int | None = None, node: int | None = None) -> list[Exchange]:
    """What `Audited` stored, in the order of rounds and nodes.

    Raises: InvalidValueError when nothing is there; CorruptFileError for a file that is no exchange.
    """
    paths = sorted(Path(folder).glob("round-*/node-*.safetensors"))
    wanted = [
        path
        for path in paths
        if (round is None or path.parent.name == f"round-{round:04d}") and (node is None or path.stem == f"node-{node}")
    ]
    if not wanted:
        raise InvalidValueError(
            f"{folder} holds {len(paths)} exchanges, none of round={round}, node={node}. Wrap the strategy in "
            "invertigo.flower.Audited(strategy, folder), and let at least one client answer."
        )
    return [Exchange.load(path) for path in wanted]


def audit_exchanges(
    folder: str | Path,
    task: Task,
    local: LocalTraining,
    *,
    round: int | None = None,
    node: int | None = None,
    truth: Callable[[int, int], Batch | None] | None = None,
    **settings: Any,
) -> dict[tuple[int, int], Audit]:
    """Audit stored rounds offline: by (round, node), what an honest-but-curious server could rebuild from each.

    Args:
        task: what the clients train; its model is used for its architecture.
        local: how they train. Flower's messages do not say, and a wrong recipe misleads the attacks.
        round, node: only these.
        truth: the private batch of a round and a node, where it is known (in a simulation): only then is there a score.
        settings: of `invertigo.audit`, for each exchange: `budget`, `attacks`, `defense`, ...
    """
    found: dict[tuple[int, int], Audit] = {}
    for one in exchanges(folder, round=round, node=node):
        known = None if truth is None else truth(one.round, one.node)
        title = f"round {one.round}, node {one.node}"
        found[one.round, one.node] = audit(one.observation(task, local), truth=known, title=title, **settings)
    return found


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path} cannot be read as safetensors ({error}); nothing else is read.") from error
