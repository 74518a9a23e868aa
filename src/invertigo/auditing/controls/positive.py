"""The third control: the same attacks on the same model rebuild something where that is easy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import torch

from invertigo.auditing.case import Case
from invertigo.auditing.judge import Judge
from invertigo.auditing.portfolio import Entry, plants
from invertigo.auditing.record import AttackRecord, ControlRecord
from invertigo.auditing.trial import attempt
from invertigo.federation.functional import functional_update, simulating
from invertigo.types import Batch, Knowledge, LocalTraining, Observation, ThreatLevel, Update

SHARE = 0.2
"""Part of a budget that the control may take."""


def easier(case: Case, seen: Observation) -> tuple[Batch, Observation]:
    """One example of the batch, its label known, in inference mode, one gradient, no defense: what could be easier?

    The update is computed here from that example, so the right answer is known.
    """
    assert case.truth is not None
    domain = case.task.domain
    one = case.truth.select([_plainest(case.truth, domain.inputs)])
    like = next(iter(seen.parameters.values()))
    one = one.to(like.device, like.dtype if like.is_floating_point() else None)
    local = LocalTraining(mode="eval", learning_rate=seen.local.learning_rate)
    simulate = functional_update(
        case.task, seen.parameters, seen.buffers, local, 1, transformable=False, statistics=True
    )
    with simulating(case.task.model, "eval"), torch.enable_grad():
        made = simulate(one.fields)
    known = Knowledge(
        level=ThreatLevel.INFERENCE_MODE,
        num_examples=1,
        labels=one.fields.get(domain.target),
        batch_statistics={k: (m.detach(), v.detach()) for k, (m, v) in made.statistics.items()} or None,
        fields={name: one[name] for name in (*getattr(domain, "sizes", ()), *case.known)},
    )
    update = Update({name: t.detach() for name, t in made.update.items()}, "gradient")
    return one, Observation(case.task, seen.parameters, seen.buffers, update, local, known)


def _plainest(truth: Batch, inputs: str) -> int:
    """The example with most contrast: a blank one could not be told from a guess."""
    spread = truth[inputs].double().flatten(1).std(1, correction=0)
    return int(spread.argmax())


def positive_control(
    case: Case, seen: Observation, entries: Sequence[Entry], records: Sequence[AttackRecord], decoys: int, seed: int,
    seconds: float,
) -> ControlRecord:  # fmt: skip
    """Run the attacks that ran in the audit on an easier case, one after another, until one of them rebuilds it.

    Where optimisation stands behind the verdict, optimisation has to be shown to work: algebra vouches for itself only.
    """
    if already := vouching(records):
        summary = f"{already.attack} rebuilt something in this audit itself."
        return ControlRecord(name="positive", status="passed", summary=summary)
    tried = _candidates(entries, records)
    if not tried or seconds <= 0:
        why = "no time was left" if tried else "no attack ran"
        return ControlRecord(name="positive", status="unknown", summary=f"It was not made: {why}.")
    try:
        return _made(case, seen, tried, decoys, seed, seconds)
    except Exception as error:  # the control is lost, not the audit
        summary = f"It could not be made: {type(error).__name__}: {str(error).rstrip('.')}."
        return ControlRecord(name="positive", status="unknown", summary=summary)


def vouching(records: Sequence[AttackRecord]) -> AttackRecord | None:
    """An attack that rebuilt something in the audit itself, on a model that nobody crafted.

    Where searches ran, it has to be one: algebra vouches for itself only.
    """
    searched = any(r.status == "ran" and not r.exact for r in records)
    found = (r for r in records if r.recovered and not (searched and r.exact) and r.level < ThreatLevel.MALICIOUS)
    return next(found, None)


def _made(
    case: Case, seen: Observation, tried: Sequence[Entry], decoys: int, seed: int, seconds: float
) -> ControlRecord:
    started = monotonic()
    one, observation = easier(case, seen)
    judge = Judge(case.task.domain, one, case.lineup, decoys, same_kind=not case.borrowed)
    judge.guess()
    facts: dict[str, float | str | None] = {}
    for number, entry in enumerate(tried):
        left = (seconds - (monotonic() - started)) / (len(tried) - number)
        if left <= 0:
            break
        trial = attempt(_unpinned(entry), observation, seed=seed, seconds=left)
        outcome = trial.status
        if trial.reconstruction is not None:
            outcome = judge(entry, observation, trial).outcomes[0]
        facts[entry.name] = outcome
        if outcome in ("exact", "recognisable"):
            how = "exactly" if outcome == "exact" else "recognisably"
            summary = f"On the same model {entry.name} rebuilt one example {how} from its gradient in inference mode."
            return ControlRecord(name="positive", status="passed", summary=summary, facts=facts)
    if not facts:
        return ControlRecord(name="positive", status="unknown", summary="It was not made: no time was left.")
    summary = (
        f"Of one example in inference mode, {', '.join(facts)} rebuilt nothing either in {seconds:.0f} s: "
        "the instrument was not shown to work on this model."
    )
    return ControlRecord(name="positive", status="failed", summary=summary, facts=facts)


def _candidates(entries: Sequence[Entry], records: Sequence[AttackRecord]) -> list[Entry]:
    """Who can vouch for the audit, the quickest first."""
    took = {r.attack: r.seconds for r in records if r.status == "ran"}
    ran = [entry for entry in entries if entry.name in took and not plants(entry.attack)]
    searches = [entry for entry in ran if not entry.attack.exact]
    return sorted(searches or ran, key=lambda entry: took[entry.name])


def _unpinned(entry: Entry) -> Entry:
    return replace(entry, pinned=False)
