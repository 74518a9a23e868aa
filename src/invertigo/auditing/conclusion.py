"""From what the attacks left behind to the written result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from invertigo.auditing.budget import Budget
from invertigo.auditing.case import Case
from invertigo.auditing.controls.gathering import Controls
from invertigo.auditing.controls.replaying import replay_flags, unsummed
from invertigo.auditing.controls.schedule import curtailed
from invertigo.auditing.environment import describe_environment
from invertigo.auditing.evidence import Evidence
from invertigo.auditing.flags import raise_flags
from invertigo.auditing.guard_record import GuardRecord
from invertigo.auditing.judge import Judge
from invertigo.auditing.ladder import Rung, climb
from invertigo.auditing.protection import settings_of
from invertigo.auditing.record import (
    AuditRecord,
    BaselineRecord,
    DefenseRecord,
    FlagRecord,
    LevelRecord,
    MetricRecord,
    UtilityRecord,
    VerdictRecord,
)
from invertigo.auditing.remedies import remedies
from invertigo.auditing.result import Audit
from invertigo.auditing.session import Session
from invertigo.auditing.strangers import nearest_strangers
from invertigo.auditing.verdict import Circumstances, decide
from invertigo.evaluation.reader import READABLE
from invertigo.federation import draws_randomly
from invertigo.types import INVERTIGO, Observation

NOUNS = {"images": "image", "graphs": "graph"}


def compose(
    case: Case,
    rungs: Sequence[Rung],
    session: Session,
    judge: Judge,
    priors: Sequence[BaselineRecord],
    clock: Budget,
    seed: int,
    decoys: int,
    command: str,
    defense: DefenseRecord | None = None,
    utility: UtilityRecord | None = None,
    guard: GuardRecord | None = None,
    *,
    controls: Controls,
    automatic: bool,
) -> Audit:
    """Everything that was found, flagged and concluded, as the result of the audit."""
    domain, records = case.task.domain, session.records
    metrics = [
        MetricRecord(name=m.name, label=m.label, privacy_loss=m.privacy_loss, unit=m.unit, description=m.description)
        for m in (*domain.metrics, *([READABLE] if judge.reader is not None else []))
    ]
    sign = 1 if metrics[0].privacy_loss else -1
    levels = climb(rungs, records, metrics[0].name, sign, unsummed(controls.replayed))
    evidence = _evidence(case, session, judge, priors, metrics, decoys, controls)
    flags = raise_flags(replace(evidence, defense=defense, utility=utility))
    record = AuditRecord(
        title=case.title,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("invertigo"),
        command=command,
        seed=seed,
        seconds=round(clock.spent, 3),
        budget_seconds=clock.seconds,
        scenario=dict(case.facts) or _facts(case),
        domain=domain.config() if hasattr(domain, "config") else {"name": domain.name},  # type: ignore[attr-defined]
        num_examples=case.num_examples or 0,
        knowledge=list(_knowledge(rungs, defense)),
        metrics=metrics,
        attacks=records,
        baselines=[*judge.baselines.values(), *priors],
        defense=defense,
        utility=utility,
        guard=guard,
        levels=levels,
        flags=flags,
        controls=list(controls.records),
        portfolio="automatic" if automatic else "chosen",
        verdict=_verdict(case, levels, session, flags, controls, automatic),
        citations=_citations(session, case),
        environment=_environment(case),
        private=case.private,
    )
    return Audit(record, session.tensors, case.truth, domain, strangers=_strangers(case, judge, record, session))


def _strangers(case: Case, judge: Judge, record: AuditRecord, session: Session) -> Mapping[str, Tensor]:
    """The line-up to show where the originals are private; a public example needs none."""
    if not case.private or judge.lineup is None:
        return {}
    lineup = judge.lineup.select(slice(0, judge.decoys))
    headline = record.metrics[0]
    return nearest_strangers(case.task.domain, record.attacks, headline, session.tensors, case.truth, lineup)


def _verdict(
    case: Case,
    levels: Sequence[LevelRecord],
    session: Session,
    flags: Sequence[FlagRecord],
    controls: Controls,
    automatic: bool,
) -> VerdictRecord:
    lowest = next((level for level in levels if level.examined and level.recovered), None)
    ways_out = remedies(
        case.task.model,
        case.local,
        case.num_examples,
        lowest.level if lowest else None,
        lowest.strongest if lowest else None,
    )
    circumstances = Circumstances(
        noun=NOUNS.get(case.task.domain.name, "example"),
        num_examples=case.num_examples,
        scored=case.truth is not None,
        interrupted=session.interrupted,
        remedies=tuple(ways_out),
        controls=controls.records,
        automatic=automatic,
        needs_seconds=controls.needs_seconds,
    )
    return decide(levels, session.records, flags, circumstances)


def _evidence(
    case: Case,
    session: Session,
    judge: Judge,
    priors: Sequence[BaselineRecord],
    metrics: Sequence[MetricRecord],
    decoys: int,
    controls: Controls,
) -> Evidence:
    assumed = [
        int(level)
        for level, seen in session.observations.items()
        if seen.knowledge.batch_statistics and not case.local.shares_buffers
    ]
    first = next(iter(session.observations.values()), None)
    return Evidence(
        attacks=session.records,
        baselines=[*judge.rivals, *priors],
        metrics=metrics,
        num_examples=case.num_examples,
        scored=case.truth is not None,
        decoys=max((a.decoys for a in session.records if a.outcomes), default=judge.available_decoys),
        wanted_decoys=decoys,
        borrowed=case.borrowed,
        statistics_assumed_from=min(assumed, default=None),
        range_inferred=case.range_inferred,
        relative_norm=1.0 if first is None else _relative_norm(first),
        curtailed=[(entry.name, *cut) for entry in session.entries for cut in curtailed(entry.attack)],
        outside_range=_outside_range(case),
        filled=_filled(case),
        controls=controls.records,
        dropout=_drops(case, controls),
        interrupted=session.interrupted,
        remarks=[*case.remarks, *replay_flags(controls.replayed)],
    )


def _drops(case: Case, controls: Controls) -> bool:
    """The step draws masks or noise of its own, as a module or called as a function."""
    drawn = draws_randomly(case.task, case.local.mode)
    return drawn or any(one.status == "random" for one in controls.replayed)


def _outside_range(case: Case) -> float:
    """Furthest that a private input lies outside its domain's range, in parts of that range."""
    domain = case.task.domain
    if case.truth is None or domain.inputs not in case.truth.fields:
        return 0.0
    inputs = case.truth[domain.inputs].detach().cpu().double()
    low, high = (end.cpu().double() for end in domain.bounds(domain.inputs))
    beyond = torch.maximum(low - inputs, inputs - high) / (high - low)
    return float(beyond.nan_to_num(0.0).max().clamp_min(0))


def _filled(case: Case) -> float:
    """Part of their domain's range that the private inputs, all together, take up."""
    domain = case.task.domain
    if case.truth is None or domain.inputs not in case.truth.fields or not case.truth[domain.inputs].numel():
        return 1.0
    inputs = case.truth[domain.inputs].detach().cpu().double()
    low, high = domain.bounds(domain.inputs)
    placed = (inputs - low) / (high - low)
    return float(placed.max() - placed.min())


def _relative_norm(observation: Observation) -> float:
    weights = sum(p.double().square().sum().item() for p in observation.parameters.values()) ** 0.5
    return observation.update.norm / weights if weights else 1.0


def _knowledge(rungs: Sequence[Rung], defense: DefenseRecord | None) -> Iterator[str]:
    yield "The model, the loss, the client's training recipe and the number of examples."
    for rung in rungs:
        if rung.attacked:
            detail = f" ({rung.reason})" if rung.reason else ""
            yield f"Rung {int(rung.level)}: {rung.level.summary}{detail}."
    if defense is not None and defense.releases > 1:
        yield f"{defense.releases} updates of the same batch and model; who does not know the defense uses the first."
    if defense is not None and defense.knows:
        yield f"The informed adversary knows the defense: {defense.knows}"


def _citations(session: Session, case: Case) -> dict[str, str]:
    ran = {record.attack for record in session.records if record.status == "ran"}
    used = [entry.attack for entry in session.entries if entry.name in ran]
    papers = [INVERTIGO, *(paper for attack in used for paper in getattr(attack, "papers", (attack.paper,)))]
    papers += [] if case.defense is None else [case.defense.paper]
    return {paper.key: paper.bibtex() for paper in papers}


def _environment(case: Case) -> dict[str, str]:
    like = next(case.task.model.parameters(), torch.zeros(()))
    return describe_environment(like.device, like.dtype)


def _facts(case: Case) -> dict[str, Any]:
    model = case.task.model
    return {
        "model": {
            "name": type(model).__name__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "classes": case.task.num_classes,
        },
        "loss": getattr(case.task.loss, "__name__", type(case.task.loss).__name__),
        "local": vars(case.local),
        "clients": 1 + len(case.others),
        "releases": case.releases,
        "defense": None if case.defense is None else {"name": case.defense.name, **settings_of(case.defense)},
    }
