"""What a defense costs: the accuracy of a model that was trained on the updates as they are released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from invertigo.auditing.protection import mean_facts
from invertigo.auditing.record import UtilityRecord
from invertigo.auditing.trial import generator_for
from invertigo.federation import TrainingRun, simulate_training
from invertigo.models.memory import keep, key, recall
from invertigo.types import Batch, Defense, LocalTraining, Task


@dataclass(frozen=True)
class TrialRun:
    """A training to be made: `task` is the one that the defense prepared, `plain` the one it began with.

    Both models are as they were before any training of the audit.
    """

    plain: Task
    task: Task
    data: Batch
    test: Batch
    local: LocalTraining
    rounds: int
    clients: int
    batch_size: int
    dirichlet: float | None = None
    undefended: bool = True


def measure_utility(trial: TrialRun, defense: Defense | None, seed: int) -> UtilityRecord:
    """Train with the defense and, if the trial asks for it, without: same clients, same batches, same start.

    The clients of a study that differ in their private examples only share one training, done once by a process.
    """
    fingerprint = _fingerprint(trial, defense, seed)
    found = recall(fingerprint)
    if found is None:
        found = _measured(trial, defense, seed)
        keep(fingerprint, found)
    return found


def _fingerprint(trial: TrialRun, defense: Defense | None, seed: int) -> str:
    """What decides the outcome: all settings in words, all tensors by their contents."""
    plain, task = trial.plain, trial.task
    words = [
        seed, type(defense), defense, trial.local, trial.rounds, trial.clients, trial.batch_size, trial.dirichlet,
        trial.undefended, plain.domain, plain.num_classes, plain.model, task.model, _name(task.loss),
    ]  # fmt: skip
    tensors = [*plain.model.state_dict().values(), *task.model.state_dict().values(), *trial.test.fields.values()]
    extra = [task.prepared[name] for name in sorted(task.prepared)]
    return key(f"utility {words}", [*tensors, *extra], trial.data.fields)


def _name(thing: object) -> str:
    """Without the address that `repr` of a function has, which means nothing."""
    return getattr(thing, "__qualname__", type(thing).__qualname__)


def _measured(trial: TrialRun, defense: Defense | None, seed: int) -> UtilityRecord:
    run = _train(trial, trial.task, defense, seed)
    bare = _train(trial, trial.plain, None, seed) if defense is not None and trial.undefended else None
    width = float(sum(p.numel() * p.element_size() for p in trial.plain.model.parameters() if p.requires_grad))
    return UtilityRecord(
        rounds=trial.rounds,
        clients=trial.clients,
        dirichlet=trial.dirichlet,
        batch_size=trial.batch_size,
        learning_rate=trial.local.learning_rate,
        examples=len(trial.data),
        test=len(trial.test),
        accuracy=run.accuracy,
        curve=list(run.curve),
        diverged=run.diverged,
        chance=_chance(trial),
        undefended_accuracy=None if bare is None else bare.accuracy,
        undefended_curve=[] if bare is None else list(bare.curve),
        undefended_share=run.undefended_share,
        seconds=run.seconds,
        undefended_seconds=None if bare is None else bare.seconds,
        bytes=_mean([t.bytes for t in run.traces], width),
        raw_bytes=_mean([t.raw_bytes for t in run.traces], width),
        facts=mean_facts(run.traces),
    )


def _train(trial: TrialRun, task: Task, defense: Defense | None, seed: int) -> TrainingRun:
    device = next(task.model.parameters()).device
    return simulate_training(
        task,
        trial.data,
        trial.test,
        trial.local,
        rounds=trial.rounds,
        clients=trial.clients,
        batch_size=trial.batch_size,
        dirichlet=trial.dirichlet,
        defense=defense,
        generator=generator_for(seed, "utility"),
        secret=generator_for(seed, "utility", "defense", device=device),
    )


def _chance(trial: TrialRun) -> float:
    labels = trial.test[trial.plain.domain.target]
    return labels.flatten().unique(return_counts=True)[1].max().item() / labels.numel()


def _mean(values: Sequence[int], otherwise: float) -> float:
    return fmean(values) if values else otherwise
