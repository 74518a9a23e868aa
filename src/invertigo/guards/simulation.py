"""A small federation under an honest server, against which guards are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from invertigo.federation import aggregate, train_locally
from invertigo.types import Batch, InvalidValueError, LocalTraining, Task, Update, duplicate


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a federation is simulated.

    Args:
        concentration: of the Dirichlet law that labels are dealt out by; None deals evenly.
        participation: share of the clients that take part in a round.
        probe: examples of a client's own that it examines models on, and that an attacked round trains on.
    """

    clients: int = 10
    rounds: int = 20
    participation: float = 1.0
    concentration: float | None = None
    training: LocalTraining = field(
        default_factory=lambda: LocalTraining(sends="difference", learning_rate=0.1, batch_size=32)
    )
    probe: int = 64
    seed: int = 0


@dataclass(frozen=True)
class HonestRound:
    """A round of the simulation: the model that the server sends, and who takes part with which update."""

    number: int
    state: dict[str, Tensor]
    updates: dict[int, Update]


@dataclass(frozen=True)
class Federation:
    """Clients with their data, a task, and what everybody may know."""

    setting: Setting
    task: Task
    parts: tuple[Batch, ...]
    public: Batch

    def rounds(self) -> Iterator[HonestRound]:
        """Federated averaging, round by round; the task's model is left alone."""
        setting = self.setting
        generator = torch.Generator().manual_seed(setting.seed + 1)
        state = {name: tensor.clone() for name, tensor in self.task.model.state_dict().items()}
        count = max(1, round(setting.participation * setting.clients))
        for number in range(setting.rounds):
            who = torch.randperm(setting.clients, generator=generator)[:count].tolist()
            task = self.on(state)
            updates = {
                client: train_locally(task, self._shuffled(client, generator), setting.training)
                for client in sorted(who)
            }
            yield HonestRound(number, state, updates)
            mean = aggregate(list(updates.values()), [len(self.parts[c]) for c in updates])
            step = 1.0 if setting.training.sends == "difference" else -setting.training.learning_rate
            state = self._moved(state, mean, step)

    def on(self, state: dict[str, Tensor]) -> Task:
        """The task with a copy of its model that holds `state`."""
        model = duplicate(self.task.model)
        model.load_state_dict(state)
        return replace(self.task, model=model)

    def _moved(self, state: dict[str, Tensor], mean: Update, step: float) -> dict[str, Tensor]:
        """Through a model, so that a parameter with two names moves under both."""
        model = self.on(state).model
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            for name, tensor in mean.tensors.items():
                named[name].add_(step * tensor)
            for name, tensor in (mean.buffers or {}).items():
                named[name].copy_(tensor)
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def probe(self, client: int) -> Batch:
        """The client's probe batch."""
        return self.parts[client].select(slice(0, min(self.setting.probe, len(self.parts[client]))))

    def _shuffled(self, client: int, generator: torch.Generator) -> Batch:
        part = self.parts[client]
        return part.select(torch.randperm(len(part), generator=generator))


def federation(task: Task, examples: Batch, setting: Setting) -> Federation:
    """Deal labelled `examples` out: a fifth is public, the rest goes to the clients, who start from the task's model.

    Raises: InvalidValueError when a client would get fewer than two examples.
    """
    generator = torch.Generator().manual_seed(setting.seed)
    order = torch.randperm(len(examples), generator=generator)
    cut = len(order) // 5
    labels = examples[task.domain.target]
    parts = deal(labels[order[cut:]], setting.clients, setting.concentration, generator)
    if min(map(len, parts)) < 2:
        raise InvalidValueError(
            f"{len(order) - cut} examples are too few for {setting.clients} clients: one would have less than two."
        )
    dealt = tuple(examples.select(order[cut:][part]) for part in parts)
    return Federation(setting, task, dealt, examples.select(order[:cut]))


def deal(labels: Tensor, clients: int, concentration: float | None, generator: torch.Generator) -> list[Tensor]:
    """Positions for each client: as many for each, with class shares evenly or from a Dirichlet law."""
    size = len(labels) // clients
    if concentration is None:
        return list(torch.randperm(len(labels), generator=generator)[: size * clients].split(size))
    classes = int(labels.max()) + 1
    shape = torch.full((clients, classes), concentration, dtype=torch.float64)
    shares = torch._standard_gamma(shape, generator=generator).clamp_min(1e-9)  # type: ignore[attr-defined]
    left = torch.ones(len(labels), dtype=torch.bool)
    parts = []
    for client in range(clients):
        weights = shares[client][labels] * left
        # Where a client's classes have run out it takes what is left.
        weights = torch.where(left, weights.clamp_min(1e-12), 0.0)
        chosen = torch.multinomial(weights, size, generator=generator)
        left[chosen] = False
        parts.append(chosen)
    return parts
