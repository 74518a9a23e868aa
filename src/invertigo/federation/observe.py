"""What the adversary on each rung of the ladder holds after one round."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from invertigo.federation.aggregate import aggregate
from invertigo.federation.client import train
from invertigo.federation.modes import native_level
from invertigo.types import (
    Batch,
    InvalidValueError,
    Knowledge,
    LocalTraining,
    Observation,
    Task,
    ThreatLevel,
    buffers_of,
    trainable,
)


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
    known: Sequence[str] = (),
) -> Observation:
    """One round as an adversary on rung `level` sees it; a rung includes what the rungs below it know.

    | rung | update | knowledge |
    |---|---|---|
    | 0 | mean over all clients, weighted by their examples, shared buffers included | total number of examples |
    | 1 | the client's own | number of examples: protocols send it so that the server can weight the update |
    | 2 | the client's own | + labels, + exact BatchNorm batch statistics of the first local step, + sizes (of graphs) |
    | 3 | recomputed in inference mode, unless the client itself does so or shares its statistics | same |
    | 4 | as on rung 3 | + public data |

    What really happens is set by `local`: a rung from 1 up that lies below `native_level(task, local)` does not
    exist for this client and is refused. On rung 0 the adversary models the mean as one client whose local steps
    are `clients` times as large, which is exact for one gradient without BatchNorm.

    Args:
        batch: the audited client's private examples.
        others: the other clients' private batches (rung 0); `clients`, when given, must be one more than these.
        public: public examples of the same kind (rung 4).
        known: further fields of the batch that an adversary knows from rung 2 on, e.g. the `adjacency` of graphs.

    Raises: InvalidValueError when the rung cannot be observed with what was given.
    """
    level = ThreatLevel(level)
    _check(task, local, level, public, clients, others)
    parameters, buffers = trainable(task.model), buffers_of(task.model)
    if level is ThreatLevel.AGGREGATE:
        crowd = [batch, *(others or ())]
        update = aggregate(
            [train(task, one, local, generator=generator).update for one in crowd], [len(one) for one in crowd]
        )
        total = Knowledge(level=level, num_examples=sum(map(len, crowd)))
        return Observation(task, parameters, buffers, update, _as_one(local, len(crowd)), total)
    if level >= ThreatLevel.INFERENCE_MODE and native_level(task, local) < ThreatLevel.INFERENCE_MODE:
        local = dataclasses.replace(local, mode="eval")
    trained = train(task, batch, local, generator=generator)
    informed = level >= ThreatLevel.STATISTICS
    sizes = getattr(task.domain, "sizes", ())
    knowledge = Knowledge(
        level=level,
        num_examples=len(batch),
        labels=batch.fields.get(task.domain.target) if informed else None,
        batch_statistics=(trained.statistics or None) if informed else None,
        public=public if level >= ThreatLevel.AUXILIARY else None,
        fields={name: batch[name] for name in (*sizes, *known)} if informed else {},
    )
    return Observation(task, parameters, buffers, trained.update, local, knowledge)


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
) -> None:
    native = native_level(task, local)
    present = 1 + len(others or ())
    if level is ThreatLevel.MALICIOUS:
        raise InvalidValueError("An honest round has no rung 5: a malicious server must craft the model first.")
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
