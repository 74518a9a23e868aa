"""Rounds that were recorded, audited later without the server or its clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from invertigo.auditing import Audit, audit
from invertigo.auditing.record import FlagRecord
from invertigo.flower.exchange import Exchange, read_tensors
from invertigo.flower.recipe import Recipe
from invertigo.flower.wire import wire_flags
from invertigo.types import Batch, InvalidValueError, LocalTraining, Task


def exchanges(folder: str | Path, *, round: int | None = None, node: int | None = None) -> list[Exchange]:
    """What was recorded, in the order of rounds and nodes.

    Raises: InvalidValueError when nothing is there, or two recordings in one folder; CorruptFileError for a file that
        is no exchange.
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
    found = sorted((Exchange.load(path) for path in wanted), key=lambda e: (e.round, e.node))
    if len({one.run for one in found}) > 1:
        raise InvalidValueError(
            f"{folder} holds exchanges of {len({one.run for one in found})} recordings, of which the later one did not "
            "replace all of the earlier. Record each run into a folder of its own, or name the round and the node."
        )
    return found


def recorded_truth(folder: str | Path, round: int, node: int) -> Batch | None:
    """The private batch, where a simulation recorded it too. Raises: CorruptFileError."""
    path = truth_path(Path(folder), round, node)
    return Batch(read_tensors(path)[0]) if path.exists() else None


def truth_path(folder: Path, round: int, node: int) -> Path:
    """Where a private batch lies beside what was sent."""
    return folder / "truth" / f"round-{round:04d}-node-{node}.safetensors"


def audit_exchanges(
    folder: str | Path,
    task: Task,
    local: LocalTraining | Recipe | None = None,
    *,
    round: int | None = None,
    node: int | None = None,
    truth: Callable[[int, int], Batch | None] | None = None,
    said: Iterable[str] = (),
    order: Sequence[str] | None = None,
    **settings: Any,
) -> dict[tuple[int, int], Audit]:
    """Audit stored rounds offline: by (round, node), what an honest-but-curious server could rebuild from each.

    Updates that travelled under a mask are left out.

    Args:
        task: what the clients train; its model is used for its architecture, and for what did not travel.
        local: how they train, for every round alike; a `Recipe`, or the one that was recorded (the default), also
            follows what the server told the clients in each round. A wrong recipe misleads the attacks: with the
            truth, the replay control notices.
        round, node: only these.
        truth: the private batch of a round and a node, where it is known (in a simulation); default: what was
            recorded. Only with it is there a score.
        said: what is announced to protect the updates: "encryption", "secure_aggregation".
        order: the model's names of lists without names, where several readings fit.
        settings: of `invertigo.audit`, for each exchange: `budget`, `attacks`, `defense`, ...

    Raises: InvalidValueError without a recipe, or when every update was masked.
    """
    everything = exchanges(folder, round=round)
    wanted = [one for one in everything if node is None or one.node == node] or exchanges(
        folder, round=round, node=node
    )
    readable = [one for one in wanted if one.wire.kind == "plaintext"]
    flags = wire_flags(everything, said)
    recipes = [_recipe(folder, one, local) for one in readable]
    if not readable:
        raise InvalidValueError(
            f"None of the {len(wanted)} updates was readable by itself ({wanted[0].wire.kind}), so there is none to "
            "audit. " + " ".join(flag.message for flag in flags)
        )
    found: dict[tuple[int, int], Audit] = {}
    for one, recipe in zip(readable, recipes):
        training = recipe.under(one.config) if isinstance(recipe, Recipe) else recipe
        known = truth(one.round, one.node) if truth is not None else recorded_truth(folder, one.round, one.node)
        observed = one.observation(task, training, order=order)
        title = f"round {one.round}, node {one.node}"
        done = audit(observed, truth=known, title=title, **settings)
        found[one.round, one.node] = _flagged(done, [*flags, *_parts(one, task, order)])
    return found


def _recipe(folder: str | Path, one: Exchange, local: LocalTraining | Recipe | None) -> LocalTraining | Recipe:
    if local is not None:
        return local
    if one.recipe:
        return Recipe.loads(one.recipe)
    raise InvalidValueError(
        f"How the clients of {folder} train was not recorded (Audited(..., recipe=Recipe(...))), and no local= was "
        "given. Flower's messages do not say it, and a guess would mislead the attacks."
    )


def _parts(one: Exchange, task: Task, order: Sequence[str] | None) -> list[FlagRecord]:
    left = one.parts(task, order)
    if not left:
        return []
    return [
        FlagRecord(
            code="partial_exchange",
            severity="warning",
            message=f"Only a part of the model travelled: {left}. Their values are those of the task's model.",
            remedy="Give the task the model of this client, as it was in this round.",
        )
    ]


def _flagged(done: Audit, flags: Sequence[FlagRecord]) -> Audit:
    return replace(done, record=done.record.model_copy(update={"flags": [*flags, *done.record.flags]}))
