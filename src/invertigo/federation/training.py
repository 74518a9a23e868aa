"""Federated training as the defended clients really do it: what the defense costs in accuracy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from invertigo.federation.aggregate import aggregate
from invertigo.federation.client import Trained, train
from invertigo.federation.functional import simulating
from invertigo.federation.partition import partition
from invertigo.types import (
    Batch,
    ConfigurationError,
    Defense,
    DefenseTrace,
    InvalidValueError,
    LocalTraining,
    Task,
    Update,
    duplicate,
)

AT_ONCE = 256
"""Test examples in one forward pass."""


@dataclass(frozen=True)
class TrainingRun:
    """How a federated training went.

    `curve` lists (round, accuracy on the test examples in [0, 1]); `traces` what the defense did in every release;
    `seconds` is the processor time of all clients. `diverged` tells that the loss became infinite or NaN, after which
    nothing was learned any more.
    """

    curve: tuple[tuple[int, float], ...]
    traces: tuple[DefenseTrace, ...]
    releases: int
    seconds: float
    model: nn.Module
    diverged: bool = False

    @property
    def accuracy(self) -> float:
        """At the end."""
        return self.curve[-1][1]

    @property
    def undefended_share(self) -> float:
        """Share of releases that equal the raw update; 1 without a defense."""
        return sum(t.undefended for t in self.traces) / len(self.traces) if self.traces else 1.0


def simulate_training(
    task: Task,
    data: Batch,
    test: Batch,
    local: LocalTraining,
    *,
    rounds: int,
    clients: int = 1,
    batch_size: int = 32,
    dirichlet: float | None = None,
    defense: Defense | None = None,
    generator: torch.Generator,
    secret: torch.Generator | None = None,
    evaluations: int = 10,
) -> TrainingRun:
    r"""Train a copy of the model for `rounds`, every update of every client passing the defense.

    $\theta \leftarrow \theta - \eta \sum_k \tfrac{n_k}{n} D(g_k)$ where clients send gradients ($\eta$ is
    `local.learning_rate`), $\theta \leftarrow \theta + \sum_k \tfrac{n_k}{n} D(\Delta_k)$ where they send differences.
    No step anywhere uses an update that was not released. BatchNorm's running statistics are averaged over the clients
    whether or not `local` shares them, because accuracy is measured in inference mode.

    Args:
        data: training examples of all clients together; `partition` says who holds which.
        batch_size: examples that a client draws from its own for one update.
        dirichlet: skew of the classes over the clients; None spreads them alike.
        secret: of the defense's randomness; without it, the operating system seeds one.
        evaluations: how often the accuracy is measured, at even distances; the last round is one of them.
    """
    if rounds < 1 or batch_size < 1:
        raise InvalidValueError(f"rounds={rounds} and batch_size={batch_size} must both be at least 1.")
    task = replace(task, model=duplicate(task.model))
    labels = data[task.domain.target]
    if labels.ndim != 1 or labels.is_floating_point():
        raise ConfigurationError(
            f"Utility is the accuracy on one class an example, but the labels have the shape {tuple(labels.shape)} and "
            f"the type {str(labels.dtype).removeprefix('torch.')}. Leave `utility` out: the attacks need none."
        )
    shards = partition(labels, clients, dirichlet=dirichlet, generator=generator)
    local = replace(local, shares_buffers=True)
    traces: list[DefenseTrace] = []
    curve: list[tuple[int, float]] = []
    seconds, releases, diverged = 0.0, 0, False
    for number in range(rounds):
        started = time.process_time()
        try:
            sent = list(_round(task, data, shards, local, batch_size, defense, generator, secret, number))
        except InvalidValueError:
            if number == 0:
                raise
            diverged = True
            break
        seconds += time.process_time() - started
        releases += len(sent)
        traces += [trained.trace for trained, _ in sent if trained.trace is not None]
        examples = [n for _, n in sent]
        mean = aggregate([one.update for one, _ in sent], examples)
        if defense is not None:
            mean = replace(mean, tensors=defense.on_aggregate(mean.tensors, local, examples))
        _apply(task.model, mean, local.learning_rate)
        if number + 1 == rounds or (number + 1) * evaluations // rounds > number * evaluations // rounds:
            curve.append((number + 1, accuracy(task, test)))
    if diverged:
        curve.append((rounds, accuracy(task, test)))
    return TrainingRun(tuple(curve), tuple(traces), releases, seconds, task.model, diverged)


def accuracy(task: Task, test: Batch) -> float:
    """Share of the test examples whose class the model ranks first, in inference mode."""
    like = next(task.model.parameters())
    test = test.to(like.device, like.dtype)
    hits = 0
    with simulating(task.model, "eval"), torch.no_grad():
        for start in range(0, len(test), AT_ONCE):
            part = test.select(slice(start, start + AT_ONCE))
            hits += int((_predicted(task, part).argmax(-1) == part[task.domain.target]).sum())
    return hits / len(test)


def _predicted(task: Task, batch: Batch) -> Tensor:
    """(example, class): what the model returned to the training step, which knows which fields the model reads."""
    seen: list[Tensor] = []

    def call(*inputs: Tensor, **named: Tensor) -> Tensor:
        seen.append(task.model(*inputs, **named))
        return seen[-1]

    task.evaluate(call, batch.fields)
    # Defenses may append columns of their own to the classes.
    return seen[0][:, : task.num_classes]


def _round(
    task: Task,
    data: Batch,
    shards: Sequence[Tensor],
    local: LocalTraining,
    batch_size: int,
    defense: Defense | None,
    generator: torch.Generator,
    secret: torch.Generator | None,
    number: int,
) -> Iterator[tuple[Trained, int]]:
    """What each client sends, with the number of examples behind it."""
    for shard in shards:
        drawn = torch.randperm(len(shard), generator=generator, device=generator.device)[:batch_size]
        batch = data.select(shard[drawn.cpu()])
        yield train(task, batch, local, generator=generator, defense=defense, secret=secret, number=number), len(batch)


def _apply(model: nn.Module, update: Update, learning_rate: float) -> None:
    """The server's step, in place: the model is a copy of ours."""
    rate = -learning_rate if update.kind == "gradient" else 1.0
    parameters: Mapping[str, Tensor] = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, change in update.tensors.items():
            parameters[name].add_(change, alpha=rate)
        for name, value in (update.buffers or {}).items():
            buffers[name].copy_(value)
