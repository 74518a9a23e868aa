"""How often guards cry wolf in honest federations, and how often they let an attacked update leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from invertigo.attacks import registry as attacks
from invertigo.attacks.active.passage import find_passage
from invertigo.federation import observe, send, train_locally
from invertigo.guards.inspector import Inspector
from invertigo.guards.simulation import Federation, HonestRound
from invertigo.types import (
    Batch,
    GuardVerdict,
    History,
    InvertigoError,
    Local,
    LocalTraining,
    Plant,
    Received,
    Task,
)

Change = Callable[[Plant, Task, torch.Generator], Plant]
GRADIENT = LocalTraining()
EXACT = 40.0
"""PSNR in dB from which an image counts as rebuilt."""


@dataclass(frozen=True)
class Adversary:
    """An attack as a server uses it: its settings, and what an adaptive server changes about the plant."""

    name: str
    attack: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    change: Change | None = None
    adaptive: bool = False


@dataclass(frozen=True)
class Check:
    """One inspection: of an honest model (`adversary` is empty) or of a planted one.

    `score` is -log10 of the smallest p-value; `rebuilt` is the share of the batch that the attack got back.
    """

    adversary: str
    round: int
    client: int
    decision: str
    malicious: bool
    leaking: bool
    score: float
    rules: tuple[str, ...]
    rebuilt: float = 0.0
    isolated: float = 0.0
    loss: float = 0.0
    skipped: str = ""

    @property
    def flagged(self) -> bool:
        """Something was said before the update left."""
        return self.decision != "pass"


def run(
    world: Federation,
    inspector: Inspector,
    adversaries: Sequence[Adversary] = (),
    *,
    at: Sequence[int] = (),
    victims: int = 1,
    rebuild: bool = True,
) -> Iterator[Check]:
    """Every inspection of a simulated federation: each participant's of each honest model, and at the rounds `at`, of
    every adversary's model by `victims` of the participants. Attacked rounds leave no trace in the honest run."""
    memory = {client: History() for client in range(world.setting.clients)}
    for turn in world.rounds():
        for position, (client, update) in enumerate(turn.updates.items()):
            local = Local(
                task=world.task, batch=world.probe(client), training=world.setting.training, update=update,
                round=turn.number,
            )  # fmt: skip
            if turn.number in at and position < victims:
                for adversary in adversaries:
                    yield attacked(world, inspector, adversary, turn, client, memory[client], rebuild=rebuild)
            verdict = inspector.inspect(Received(turn.state), memory[client], local)
            memory[client] = memory[client].add(verdict)
            yield check("", turn.number, client, verdict)


def attacked(
    world: Federation,
    inspector: Inspector,
    adversary: Adversary,
    turn: HonestRound,
    client: int,
    history: History,
    *,
    rebuild: bool = True,
) -> Check:
    """One client's inspection of what `adversary` sends instead of this round's model; one gradient is sent back."""
    generator = torch.Generator().manual_seed(1000 * turn.number + client)
    task, batch = world.on(turn.state), world.probe(client)
    try:
        plant = planted(adversary, task, world.public, len(batch), generator)
        crafted = send(task, plant)
        update = train_locally(crafted, batch, GRADIENT)
    except InvertigoError as error:
        return Check(
            adversary.name, turn.number, client, "pass", False, False, 0.0, (), skipped=" ".join(str(error).split())
        )
    local = Local(task=world.task, batch=batch, training=GRADIENT, update=update, round=turn.number)
    verdict = inspector.inspect(Received(crafted.model.state_dict()), history, local)
    share = rebuilt(adversary, task, plant, batch, world.public) if rebuild else 0.0
    return check(adversary.name, turn.number, client, verdict, share)


def planted(adversary: Adversary, task: Task, public: Batch, examples: int, generator: torch.Generator) -> Plant:
    """What the adversary sends. Raises: RequirementError when the model has no place for the attack."""
    attack: Any = attacks.make(adversary.attack, **adversary.settings)
    plant = attack.plant(task, GRADIENT, public=public, num_examples=examples, clients=1, generator=generator)
    return plant if adversary.change is None else adversary.change(plant, task, generator)


def rebuilt(adversary: Adversary, task: Task, plant: Plant, batch: Batch, public: Batch) -> float:
    """Share of the batch that the adversary gets back at 40 dB or more; attacks that need an optimiser are not run."""
    if not attacks[adversary.attack].exact:
        return 0.0
    seen = observe(task, batch, GRADIENT, level=5, public=public, plant=plant)
    attack = attacks.make(adversary.attack, **adversary.settings)
    try:
        found = attack.reconstruct(seen, generator=torch.Generator().manual_seed(0))
    except InvertigoError:
        return 0.0
    scores = task.domain.score(batch, found.fields).per_example["psnr"]
    return float((torch.as_tensor(scores) >= EXACT).double().mean())


def check(adversary: str, round: int, client: int, verdict: GuardVerdict, share: float = 0.0) -> Check:
    """What is kept of a verdict."""
    p_values = [f.p_value for f in verdict.observed if f.p_value is not None]
    isolated = max((f.statistic for f in verdict.observed if f.rule in ("isolation", "bin_isolation")), default=0.0)
    return Check(
        adversary=adversary,
        round=round,
        client=client,
        decision=verdict.decision,
        malicious=verdict.malicious,
        leaking=verdict.leaking,
        score=-math.log10(max(min(p_values, default=1.0), 1e-300)),
        rules=tuple(sorted({f.rule for f in verdict.findings})),
        rebuilt=share,
        isolated=isolated,
        loss=verdict.figures.get("loss_level", 0.0),
    )


def area(honest: Sequence[float], attacked: Sequence[float]) -> float:
    """Area under the ROC curve of `score`: the probability that an attacked round scores higher than an honest one."""
    if not honest or not attacked:
        return math.nan
    low, high = torch.tensor(honest), torch.tensor(attacked)
    return float(((high[:, None] > low).double() + 0.5 * (high[:, None] == low).double()).mean())


def noisy(relative: float, permute: bool = False) -> Change:
    """Noise of `relative` times each crafted matrix's own deviation, and rows in another order."""

    def change(plant: Plant, task: Task, generator: torch.Generator) -> Plant:
        state = {name: _jittered(tensor, relative, generator) for name, tensor in plant.state.items()}
        return replace(plant, state=_permuted(state, task, generator) if permute else state)

    return change


def partly(share: float) -> Change:
    """A step of `share` of the way from the honest model to the planted one (slow drift)."""

    def change(plant: Plant, task: Task, generator: torch.Generator) -> Plant:
        own = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
        mixed = {n: own[n].detach() + share * (t - own[n].detach()) for n, t in plant.state.items()}
        return replace(plant, state=mixed)

    return change


def _jittered(tensor: Tensor, relative: float, generator: torch.Generator) -> Tensor:
    if tensor.ndim < 2:
        return tensor
    size = tensor.square().mean().sqrt()
    return tensor + relative * size * torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)


def _permuted(state: dict[str, Tensor], task: Task, generator: torch.Generator) -> dict[str, Tensor]:
    """Rows of the planted hidden layer and the columns that read them, in another order."""
    passage = find_passage(task, GRADIENT.mode)
    order = torch.randperm(len(state[passage.bias]), generator=generator)
    weight = passage.layer.weight_name
    state = {**state, weight: state[weight][order], passage.bias: state[passage.bias][order]}
    if passage.consumer in state:
        state[passage.consumer] = state[passage.consumer][:, order]
    return state
