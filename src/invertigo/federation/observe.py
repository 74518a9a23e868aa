"""What the adversary on each rung of the ladder holds after one round."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from invertigo.federation.aggregate import aggregate
from invertigo.federation.client import train
from invertigo.federation.modes import native_level
from invertigo.federation.penalty import penalty_removed
from invertigo.federation.server import send
from invertigo.types import (
    Batch,
    Defense,
    DefenseTrace,
    InvalidValueError,
    Knowledge,
    LocalTraining,
    Observation,
    Plant,
    Task,
    ThreatLevel,
    buffers_of,
    trainable,
)


@dataclass(frozen=True)
class Round:
    """What an adversary holds after a round (or several on the same batch), and what the defense did in each release.

    The traces compare with the raw update, which no adversary has: they belong beside the truth.
    """

    observation: Observation
    traces: tuple[DefenseTrace, ...] = ()


def observe(
    task: Task,
    batch: Batch,
    local: LocalTraining,
    *,
    level: ThreatLevel | int,
    generator: torch.Generator | None = None,
    public: Batch | None = None,
    clients: int = 1,
    others: Sequence[Batch] | None = None,
    defense: Defense | None = None,
    secret: torch.Generator | None = None,
    releases: int = 1,
    known: Sequence[str] = (),
    plant: Plant | None = None,
) -> Observation:
    """One round as an adversary on rung `level` sees it; a rung includes what the rungs below it know.

    | rung | update | knowledge |
    |---|---|---|
    | 0 | mean over all clients, weighted by their examples, shared buffers included | total number of examples |
    | 1 | the client's own | number of examples: protocols send it so that the server can weight the update |
    | 2 | the client's own | + labels, + exact BatchNorm batch statistics of the first local step, + sizes (of graphs) |
    | 3 | recomputed in inference mode, unless the client itself does so or shares its statistics | same |
    | 4 | as on rung 3 | + public data |
    | 5 | the client's own on a planted model; with `others`, their mean | number of examples, public data |

    What really happens is set by `local`: a rung from 1 up that lies below `native_level(task, local)` does not
    exist for this client and is refused. On rung 0 the adversary models the mean as one client whose local steps
    are `clients` times as large, which is exact for one gradient without BatchNorm.

    Args:
        batch: the audited client's private examples.
        others: the other clients' private batches (rung 0); `clients`, when given, must be one more than these.
        public: public examples of the same kind (rung 4).
        defense: what every client does; `task` must be the one that its `prepare` returned.
        secret: of the defense's randomness; without it, the operating system seeds one.
        releases: how often the client sends an update for this batch and this model (`Observation.releases`).
        known: further fields of the batch that an adversary knows from rung 2 on, e.g. the `adjacency` of graphs.
        plant: what the malicious server of rung 5 sends instead of the model; every client trains on it.

    Raises: InvalidValueError when the rung cannot be observed with what was given.
    """
    return observe_round(
        task, batch, local, level=level, generator=generator, public=public, clients=clients, others=others,
        defense=defense, secret=secret, releases=releases, plant=plant, known=known,
    ).observation  # fmt: skip


def observe_round(
    task: Task,
    batch: Batch,
    local: LocalTraining,
    *,
    level: ThreatLevel | int,
    generator: torch.Generator | None = None,
    public: Batch | None = None,
    clients: int = 1,
    others: Sequence[Batch] | None = None,
    defense: Defense | None = None,
    secret: torch.Generator | None = None,
    releases: int = 1,
    known: Sequence[str] = (),
    plant: Plant | None = None,
) -> Round:
    """`observe`, with what the defense did in each release of the audited client beside it."""
    level = ThreatLevel(level)
    _check(task, local, level, public, clients, others, plant)
    if releases < 1:
        raise InvalidValueError(f"releases={releases}; a client sends its update at least once.")
    passive = level is not ThreatLevel.MALICIOUS
    if passive and level >= ThreatLevel.INFERENCE_MODE and native_level(task, local) < ThreatLevel.INFERENCE_MODE:
        local = dataclasses.replace(local, mode="eval")
    crowd = [batch, *(others or ())] if level in (ThreatLevel.AGGREGATE, ThreatLevel.MALICIOUS) else [batch]
    tasks = [task if plant is None else send(task, plant, client) for client in range(len(crowd))]
    rounds = [
        [
            train(its, one, local, generator=generator, defense=defense, secret=secret, number=number)
            for its, one in zip(tasks, crowd)
        ]
        for number in range(releases)
    ]
    sizes = [len(one) for one in crowd]
    updates = [aggregate([t.update for t in r], sizes) if len(r) > 1 else r[0].update for r in rounds]
    informed = passive and level >= ThreatLevel.STATISTICS
    knowledge = Knowledge(
        level=level,
        num_examples=sum(sizes),
        labels=batch.fields.get(task.domain.target) if informed else None,
        batch_statistics=(rounds[0][0].statistics or None) if informed else None,
        public=public if level >= ThreatLevel.AUXILIARY else None,
        plant=plant,
        fields={name: batch[name] for name in (*getattr(task.domain, "sizes", ()), *known)} if informed else {},
    )
    repeated = tuple(updates) if releases > 1 else ()
    sent = tasks[0]
    parameters, buffers = trainable(sent.model), buffers_of(sent.model)
    seen = Observation(sent, parameters, buffers, updates[0], _as_one(local, len(crowd)), knowledge, repeated)
    seen = seen if defense is not None else penalty_removed(seen)
    return Round(seen, tuple(r[0].trace for r in rounds if r[0].trace is not None))


def _as_one(local: LocalTraining, clients: int) -> LocalTraining:
    if local.batch_size is None:
        return local
    return dataclasses.replace(local, batch_size=local.batch_size * clients)


def _check(
    task: Task,
    local: LocalTraining,
    level: ThreatLevel,
    public: Batch | None,
    clients: int,
    others: Sequence[Batch] | None,
    plant: Plant | None,
) -> None:
    native = native_level(task, local)
    present = 1 + len(others or ())
    if (level is ThreatLevel.MALICIOUS) != (plant is not None):
        raise InvalidValueError(
            "An honest round has no rung 5: a malicious server must craft the model first. Pass its plant=..."
            if plant is None
            else f"A planted model is rung 5, not rung {int(level)}."
        )
    if ThreatLevel.UPDATE <= level < native:
        raise InvalidValueError(
            f"Rung {int(level)} does not exist for this client: it computes with mode={local.mode!r} and "
            f"shares_buffers={local.shares_buffers}, which already gives rung {int(native)}. "
            f"Observe rung {int(native)} or higher, or change LocalTraining."
        )
    if level is ThreatLevel.AGGREGATE and present < 2:
        raise InvalidValueError(
            f"Rung 0 is the sum over several clients, but clients={clients} and no other batch was given; "
            "pass others=[...], one batch for each further client."
        )
    if clients not in (1, present):
        raise InvalidValueError(f"clients={clients}, but {present - 1} other batches were given; pass {clients - 1}.")
    if level is ThreatLevel.AUXILIARY and public is None:
        raise InvalidValueError("Rung 4 is an adversary with public data; pass public=Batch(...).")
