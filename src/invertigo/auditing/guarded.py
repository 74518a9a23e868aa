"""A federation whose clients have a guard, under an honest server and under crafted models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from invertigo.auditing.guard_record import AdversaryRecord, AttackedRecord, GuardRecord, InspectionRecord
from invertigo.auditing.scenario import CampaignSection
from invertigo.guards import Inspector
from invertigo.guards.evaluation import Adversary, Check, run
from invertigo.guards.simulation import Setting, federation
from invertigo.types import Batch, ConfigurationError, Task


@dataclass(frozen=True)
class GuardTrial:
    """A federation to be simulated: `examples` are dealt out to its clients, attacks begin in the rounds `at`."""

    task: Task
    examples: Batch
    setting: Setting
    adversaries: tuple[Adversary, ...]
    at: tuple[int, ...]


def moments(names: Sequence[str], rounds: int) -> tuple[int, ...]:
    """Round numbers of `first`, `early` (the third), `middle` and `last`, each once."""
    places = {"first": 0, "early": min(2, rounds - 1), "middle": rounds // 2, "last": rounds - 1}
    return tuple(sorted({places[name] for name in names}))


def adversaries(campaigns: Sequence[CampaignSection]) -> tuple[Adversary, ...]:
    """The servers that a scenario asks for. Raises: ConfigurationError when two have the same label."""
    found = tuple(
        Adversary(one.label or _label(one), one.name, one.settings, drift=one.drift, visits=one.visits)
        for one in campaigns
    )
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"guarded.attacks: two are called '{twice[0]}'; give each a `label` of its own.")
    return found


def _label(one: CampaignSection) -> str:
    drift = {"drift": one.drift} if one.drift is not None else {}
    return " ".join([one.name, *(f"{name}={value}" for name, value in {**one.settings, **drift}.items())])


def measure_guard(trial: GuardTrial) -> GuardRecord:
    """Run the federation once under an honest server, and every campaign beside it."""
    world = federation(trial.task, trial.examples, trial.setting)
    checks = list(run(world, Inspector(), trial.adversaries, at=trial.at))
    setting = trial.setting
    return GuardRecord(
        clients=setting.clients,
        rounds=setting.rounds,
        participation=setting.participation,
        dirichlet=setting.concentration,
        examples=sum(map(len, world.parts)),
        honest=[InspectionRecord(**_facts(one)) for one in checks if not one.adversary],
        adversaries=[_adversary(one, [c for c in checks if c.adversary == one.name]) for one in trial.adversaries],
    )


def _adversary(adversary: Adversary, checks: Iterable[Check]) -> AdversaryRecord:
    checks = list(checks)
    made = [one for one in checks if not one.skipped]
    return AdversaryRecord(
        name=adversary.name,
        attack=adversary.attack,
        settings=dict(adversary.settings),
        drift=adversary.drift,
        tuned=adversary.tuned,
        inspections=[
            AttackedRecord(
                started=one.started,
                rebuilt=one.rebuilt,
                honest=one.honest,
                behind=one.behind,
                honest_behind=one.honest_behind,
                harmful=one.harmful,
                **_facts(one),
            )
            for one in made
        ],
        skipped=next((one.skipped for one in checks if one.skipped), "") if not made else "",
    )


def _facts(one: Check) -> dict[str, Any]:
    return {
        "round": one.round,
        "client": one.client,
        "decision": one.decision,
        "score": round(one.score, 4),
        "rules": list(one.rules),
        "isolated": one.isolated,
        "loss": one.loss,
    }
