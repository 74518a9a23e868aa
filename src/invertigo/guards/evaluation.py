"""How often guards cry wolf in honest federations, and how soon they notice an attack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from invertigo.attacks import registry as attacks
from invertigo.federation import observe, per_example_gradients, send, train_locally
from invertigo.guards.inspector import Inspector
from invertigo.guards.simulation import Federation, HonestRound
from invertigo.types import (
    Batch,
    GuardVerdict,
    History,
    InvertigoError,
    Local,
    LocalTraining,
    Observation,
    Plant,
    Received,
    Task,
)

TUNED_ON = frozenset({"imprint", "trap_weights", "quantile_bias", "geminio"})
"""Attacks in whose view rules and constants were chosen: `row_tails` was scaled with a tenth of the rows crafted
(quantile_bias), `loss_tail` and `few_examples` were added after loss shaping (geminio) had passed. All others are held
out."""
GRADIENT = LocalTraining()
"""What an attacked round asks for: one gradient of the probe batch, which every attack can read."""
FEW, SAME = 1 / 8, 0.95
"""An update is left to few when so small a part of the batch makes it up, to this cosine; an optimiser inverts that."""
EXACT, LIKE = 40.0, 18.0
"""PSNR in dB from which an image counts as rebuilt: by arithmetic, and by a decoder (Scale-MIA's own criterion)."""


@dataclass(frozen=True)
class Adversary:
    """A server's campaign against one client: an attack with its settings, for `visits` of the client's rounds.

    With `drift` d, the k-th of these rounds sends a model that is min(1, k d) of the way from the honest to the planted
    one. The campaign ends when the client notices.
    """

    name: str
    attack: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    drift: float | None = None
    visits: int = 1

    @property
    def tuned(self) -> bool:
        """Rules or constants of the guards were chosen with this attack in view."""
        return self.attack in TUNED_ON


@dataclass(frozen=True)
class Check:
    """One inspection: of an honest model (`adversary` is empty) or of a planted one.

    `started` is the round in which the campaign began. `score` is -log10 of the smallest p-value. `rebuilt` is the
    share of the batch that the attack reads back, `honest` the share that an honest server could read in this round.
    Where reading back takes an optimiser, none is run: `rebuilt` is None, and `behind` the share of the batch that
    makes up the update (`honest_behind`: of an honest one).
    """

    adversary: str
    started: int
    round: int
    client: int
    decision: str
    malicious: bool
    leaking: bool
    score: float
    rules: tuple[str, ...]
    rebuilt: float | None = None
    honest: float = 0.0
    behind: float | None = None
    honest_behind: float | None = None
    isolated: float = 0.0
    loss: float = 0.0
    skipped: str = ""

    @property
    def flagged(self) -> bool:
        """Something was said before the update left."""
        return self.decision != "pass"

    @property
    def missed(self) -> bool:
        """The update left, and tells more than an honest round would."""
        return not self.skipped and not self.flagged and self.harmful

    @property
    def harmful(self) -> bool:
        """More can be read than in an honest round; by an optimiser, when fewer examples than usual are left in it."""
        if self.rebuilt is not None:
            return self.rebuilt > self.honest
        usual = 1.0 if self.honest_behind is None else self.honest_behind
        return self.behind is None or (self.behind <= FEW and self.behind < usual)


@dataclass
class _Campaign:
    adversary: Adversary
    started: int
    client: int
    history: History
    visits: int = 0

    @property
    def over(self) -> bool:
        return self.visits >= self.adversary.visits


def run(
    world: Federation,
    inspector: Inspector,
    adversaries: Sequence[Adversary] = (),
    *,
    at: Sequence[int] = (),
    watched: int | None = None,
) -> Iterator[Check]:
    """Every inspection of a simulated federation: each participant's of each honest model, and from each of the rounds
    `at` on, of every adversary's model by one of the participants. Attacks leave no trace in the honest run.

    Clients count their own rounds, as a Flower client does. `watched` clients inspect honest models; None is all.
    """
    memory = {client: History() for client in range(world.setting.clients)}
    campaigns: list[_Campaign] = []
    for turn in world.rounds():
        if turn.number in at:
            client = next(iter(turn.updates))
            campaigns += [_Campaign(one, turn.number, client, memory[client]) for one in adversaries]
        honest: dict[int, tuple[float, float | None]] = {}
        for campaign in campaigns:
            if campaign.client in turn.updates:
                if campaign.client not in honest:
                    honest[campaign.client] = _usual(world, turn, campaign.client)
                yield _attacked(world, inspector, campaign, turn, *honest[campaign.client])
        campaigns = [campaign for campaign in campaigns if not campaign.over]
        for client, update in turn.updates.items():
            if watched is not None and client >= watched:
                continue
            local = Local(
                task=world.task, batch=world.probe(client), training=world.setting.training, update=update,
                round=len(memory[client].visits),
            )  # fmt: skip
            verdict = inspector.inspect(Received(turn.state), memory[client], local)
            memory[client] = memory[client].add(verdict)
            yield check("", turn.number, turn.number, client, verdict)


def _attacked(
    world: Federation,
    inspector: Inspector,
    campaign: _Campaign,
    turn: HonestRound,
    honest: float,
    honest_behind: float | None,
) -> Check:
    """The client's inspection of what the adversary sends instead of this round's model; one gradient is sent back."""
    adversary, client = campaign.adversary, campaign.client
    generator = torch.Generator().manual_seed(1000 * turn.number + client)
    task, batch = world.on(turn.state), world.probe(client)
    campaign.visits += 1
    try:
        plant = planted(adversary, task, world.public, len(batch), generator, visit=campaign.visits)
        crafted = send(task, plant)
        update = train_locally(crafted, batch, GRADIENT)
    except InvertigoError as error:
        campaign.visits = adversary.visits
        reason = " ".join(str(error).split())
        return Check(
            adversary.name, campaign.started, turn.number, client, "pass", False, False, 0.0, (), skipped=reason
        )
    local = Local(task=world.task, batch=batch, training=GRADIENT, update=update, round=len(campaign.history.visits))
    verdict = inspector.inspect(Received(crafted.model.state_dict()), campaign.history, local)
    campaign.history = campaign.history.add(verdict)
    if verdict.decision != "pass":
        campaign.visits = adversary.visits
    share = rebuilt(adversary, task, plant, batch, world.public)
    found = check(adversary.name, campaign.started, turn.number, client, verdict)
    if share is None:
        return replace(found, behind=behind(crafted, batch), honest=honest, honest_behind=honest_behind)
    return replace(found, rebuilt=share, honest=honest)


def planted(
    adversary: Adversary, task: Task, public: Batch, examples: int, generator: torch.Generator, *, visit: int = 1
) -> Plant:
    """What the adversary sends at its `visit`-th round. Raises: RequirementError where the attack does not fit."""
    attack: Any = attacks.make(adversary.attack, **adversary.settings)
    plant = attack.plant(task, GRADIENT, public=public, num_examples=examples, clients=1, generator=generator)
    if adversary.drift is None:
        return plant
    share, own = min(1.0, visit * adversary.drift), task.model.state_dict()
    return replace(plant, state={n: own[n] + share * (t - own[n]) for n, t in plant.state.items()})


def rebuilt(adversary: Adversary, task: Task, plant: Plant, batch: Batch, public: Batch) -> float | None:
    """Share of the batch that the adversary gets back; None for attacks that need an optimiser, which is not run."""
    attack = attacks.make(adversary.attack, **adversary.settings)
    if hasattr(attack, "iterations"):
        return None
    seen = observe(task, batch, GRADIENT, level=5, public=public, plant=plant)
    return _read(attack, seen, batch, EXACT if attack.exact else LIKE)


def readable(world: Federation, turn: HonestRound, client: int) -> float:
    """Share of the client's probe batch that an honest server could read off one gradient of it, row by row.

    The read-out is that of `quantile_bias`, which isolates examples in single rows, on the model as it is.
    """
    task, batch = world.on(turn.state), world.probe(client)
    attack = attacks.make("quantile_bias")
    as_it_is = Plant(attack.name, dict(task.model.named_parameters()))
    seen = observe(task, batch, GRADIENT, level=5, public=world.public, plant=as_it_is)
    return _read(attack, seen, batch, EXACT)


def behind(task: Task, batch: Batch) -> float | None:
    """Smallest share of the batch whose gradients, the longest first, point where the gradient of the batch points.

    None where examples have no gradient of their own (BatchNorm).
    """
    try:
        gradients = per_example_gradients(task, task.model, batch)
    except InvertigoError:
        return None
    flat = torch.cat([g.flatten(1).double() for g in gradients.values()], 1)
    products = flat @ flat.T
    order = products.diagonal().argsort(descending=True)
    products = products[order][:, order]
    whole = products.sum().clamp_min(1e-300).sqrt()
    to_whole = products.sum(1).cumsum(0)
    own = products.cumsum(0).cumsum(1).diagonal().clamp_min(1e-300).sqrt()
    enough = (to_whole / (own * whole) >= SAME).nonzero()[:, 0]
    return (int(enough[0]) + 1 if len(enough) else len(batch)) / len(batch)


def _usual(world: Federation, turn: HonestRound, client: int) -> tuple[float, float | None]:
    """What an honest round would give away of the client: by arithmetic, and to an optimiser."""
    return readable(world, turn, client), behind(world.on(turn.state), world.probe(client))


def _read(attack: Any, seen: Observation, batch: Batch, enough: float) -> float:
    try:
        found = attack.reconstruct(seen, generator=torch.Generator().manual_seed(0))
    except InvertigoError:
        return 0.0
    scores = seen.task.domain.score(batch, found.fields).per_example["psnr"]
    return float((torch.as_tensor(scores) >= enough).double().mean())


def check(adversary: str, started: int, round: int, client: int, verdict: GuardVerdict) -> Check:
    """What is kept of a verdict."""
    p_values = [f.p_value for f in verdict.observed if f.p_value is not None]
    isolated = max((len(f.examples) / max(f.of, 1) for f in verdict.observed if f.rule == "isolation"), default=0.0)
    return Check(
        adversary=adversary,
        started=started,
        round=round,
        client=client,
        decision=verdict.decision,
        malicious=verdict.malicious,
        leaking=verdict.leaking,
        score=-math.log10(max(min(p_values, default=1.0), 1e-300)),
        rules=tuple(sorted({f.rule for f in verdict.findings})),
        isolated=isolated,
        loss=verdict.figures.get("loss_level", 0.0),
    )


def area(honest: Sequence[float], attacked: Sequence[float]) -> float:
    """Area under the ROC curve of `score`: the probability that an attacked round scores higher than an honest one."""
    if not honest or not attacked:
        return math.nan
    low, high = torch.tensor(honest), torch.tensor(attacked)
    return float(((high[:, None] > low).double() + 0.5 * (high[:, None] == low).double()).mean())
