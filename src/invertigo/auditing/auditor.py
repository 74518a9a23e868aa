"""The audit: from a client to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from invertigo.auditing.budget import Budget, parse_budget
from invertigo.auditing.case import (
    Case,
    case_of_observation,
    case_of_step,
    case_of_tape,
)
from invertigo.auditing.conclusion import compose
from invertigo.auditing.controls.gathering import make_controls
from invertigo.auditing.controls.replaying import replay_rungs, rescaled
from invertigo.auditing.guarded import measure_guard
from invertigo.auditing.judge import Judge, baseline
from invertigo.auditing.lineup import as_batch, stand_in
from invertigo.auditing.observing import observe_plants, observe_rungs
from invertigo.auditing.portfolio import choose, plants
from invertigo.auditing.protection import describe_defense, read_informed
from invertigo.auditing.record import BaselineRecord
from invertigo.auditing.result import Audit
from invertigo.auditing.scenario import DefenseSection, Scenario, load_scenario
from invertigo.auditing.scope import contains_automatic
from invertigo.auditing.session import AuditProgress, Session
from invertigo.auditing.staging import stage
from invertigo.auditing.utility import measure_utility
from invertigo.data import GraphSet, ImageSet
from invertigo.federation import Tape
from invertigo.federation.reading import no_loss
from invertigo.types import (
    Batch,
    ConfigurationError,
    Defense,
    Domain,
    LocalTraining,
    Observation,
    Requirement,
    StepLoss,
    ThreatLevel,
)


def audit(
    subject: Tape | Observation | Scenario | nn.Module | str | Path,
    loss_fn: Callable[..., Any] | None = None,
    batch: Any = None,
    *,
    truth: Any = None,
    domain: Domain | None = None,
    local: LocalTraining | None = None,
    levels: Sequence[int] | None = None,
    attacks: str | Sequence[Any] | None = None,
    budget: str | float | int | None = None,
    seed: int | None = None,
    defense: str | Mapping[str, Any] | Defense | None = None,
    releases: int | None = None,
    public: Batch | ImageSet | GraphSet | None = None,
    decoys: int | None = None,
    num_classes: int | None = None,
    step: StepLoss | None = None,
    progress: AuditProgress | None = None,
    title: str | None = None,
    private: bool | None = None,
    command: str | None = None,
) -> Audit:
    """Measure how much of a client's private data can be rebuilt from its update, by whom, and what would stop it.

    Args:
        subject: a tape from `invertigo.watch`; a model (with `loss_fn` and `batch`); an `Observation` (with `truth`
            if scores are wanted); a `Scenario`, the name of a packaged one, or the path of a YAML file.
        batch: the private examples: `(inputs, targets)`, named tensors, or a `Batch`, as the model reads them.
        truth: the private examples behind an observation, in the same forms.
        domain: the kind of data and its normalisation; without it, images whose range is inferred.
        local: how the client trains; default: one gradient, in the mode that the model is in.
        levels: rungs of the threat ladder to examine; default: from the client's own rung up to 3, and rung 0 or 4
            where other clients or public data make them possible.
        attacks: "auto", or names, attacks, or `{"name": ..., **hyperparameters}`.
        budget: wall time for everything, as seconds or text such as "60s" (the default).
        defense: what the client does against reconstruction: a name, `{"name": ..., **settings}`, or a defense. Every
            attack is then run by an adversary who does not know it and by one who does. With an `Observation`, it is
            the defense that its update went through.
        releases: how often the adversary sees an update of the same batch and the same model.
        public: examples of the same kind that are no secret: baselines, decoys, and what rung 4 knows.
        decoys: length of the line-up of each example; default 100.
        step: `step(call, fields) -> loss` where the loss is not `loss_fn(model(inputs), targets)`; `call` stands for
            the model, `fields` holds the named tensors of the batch. `loss_fn` may then be None.
        progress: called now and then with a `Stage`; returning True stops the attack that is running.
        private: False lets a report show the originals. Default True; for scenarios, unless the data are bundled.
        command: what to write down as the way to repeat this audit; default: the call in Python.

    Raises: InvertigoError when the parts do not belong together. An attack that refuses or crashes does not stop the
        audit; Ctrl-C ends it early, with a verdict on what is there.
    """
    if isinstance(subject, (str, Path, Scenario)):
        scenario = subject if isinstance(subject, Scenario) else load_scenario(subject)
        given = {"attacks": attacks, "levels": levels, "budget": budget, "seed": seed, "decoys": decoys}
        given |= {"defense": defense, "releases": releases}
        return _audit_scenario(scenario, subject, given, progress, title, private, command)
    case = _case(subject, loss_fn, batch, truth, domain, local, num_classes, step)
    case = case if public is None else replace(case, public=as_batch(public, case.task.domain))
    case = _with_lineup(case, 100 if decoys is None else decoys)
    case = replace(case, title=title or case.title, private=True if private is None else private)
    case = case.defended(defense, releases or 1, seed or 0)
    call = {"levels": levels, "attacks": attacks or "auto", "budget": budget or "60s", "seed": seed or 0}
    call |= {"defense": defense, "releases": releases}
    return run_audit(
        case,
        attacks=attacks,
        levels=levels,
        budget=parse_budget(budget or "60s"),
        seed=seed or 0,
        decoys=100 if decoys is None else decoys,
        progress=progress,
        command=command or _call(subject, call),
    )


def _audit_scenario(
    scenario: Scenario,
    subject: Any,
    given: Mapping[str, Any],
    progress: AuditProgress | None,
    title: str | None,
    private: bool | None,
    command: str | None,
) -> Audit:
    own = given["defense"] if isinstance(given["defense"], Defense) else None
    case = stage(_with_defense(scenario, given), defense=own)
    case = replace(
        case, title=title or case.title or str(subject), private=case.private if private is None else private
    )
    found = run_audit(
        case,
        attacks=given["attacks"] or scenario.attack_list(),
        levels=given["levels"] if given["levels"] is not None else scenario.adversary.levels,
        budget=parse_budget(given["budget"] or scenario.budget),
        seed=scenario.seed if given["seed"] is None else given["seed"],
        decoys=given["decoys"] or scenario.decoys,
        progress=progress,
        command=command or _scenario_command(subject, given),
    )
    beside = [
        _audit_scenario(other, subject, given, progress, None, private, command) for other in scenario.companions()
    ]
    return replace(found, companions=tuple(beside))


def _with_defense(scenario: Scenario, given: Mapping[str, Any]) -> Scenario:
    """The scenario with what the caller put in place of its defense and its number of releases."""
    wanted, releases = given["defense"], given["releases"]
    changes: dict[str, Any] = {}
    if isinstance(wanted, str):
        changes["defense"] = wanted
    elif isinstance(wanted, Mapping):
        changes["defense"] = DefenseSection.model_validate(dict(wanted))
    elif wanted is not None:
        changes["defense"] = None  # an object, which no scenario can hold
    if releases is not None:
        changes["adversary"] = scenario.adversary.model_copy(update={"releases": releases})
    return scenario.model_copy(update=changes) if changes else scenario


def run_audit(
    case: Case,
    *,
    attacks: Any,
    levels: Sequence[int] | None,
    budget: float,
    seed: int,
    decoys: int,
    progress: AuditProgress | None,
    command: str,
) -> Audit:
    """Choose, attack, score and conclude, for a case that is ready."""
    clock = Budget(float(budget))
    asked = levels is not None and ThreatLevel.MALICIOUS in levels
    entries = choose(attacks, case.task, case.num_examples, planting=asked)
    wants_public = any(Requirement.PUBLIC_DATA in entry.attack.requires for entry in entries)
    rungs = case.rungs(levels, wants_public, any(plants(entry.attack) for entry in entries))
    automatic = contains_automatic(entries, case, rungs)
    rungs, rounds = observe_rungs(case, rungs, seed)
    replayed = replay_rungs(case, rounds, seed, min(2.5, 0.05 * clock.seconds))
    rounds = rescaled(rounds, replayed)
    planted, misfits = observe_plants(case, rungs, entries, seed)
    observations = {level: seen.observation for level, seen in rounds.items()}
    reading = read_informed(case.defense, observations)
    judge = Judge(case.task.domain, case.truth, case.lineup, decoys, case.reader)
    quiet = attacks is None or attacks == "auto"
    session = Session(observations, entries, judge, clock, seed, progress, reading.informed, planted, misfits, quiet)
    session.judging = judge.warm_up()
    session.controlled = case.truth is not None
    session.run()
    controls = make_controls(case, session, replayed, decoys, seed, automatic=automatic)
    priors = list(_prior_baselines(session, judge)) if observations else []
    protection = None
    if case.defense is not None:
        releases = case.releases if case.received is None else len(case.received.releases) or 1
        protection = describe_defense(
            case.defense, list(rounds.values()), reading, releases=releases, replaces_task=case.replaces_task
        )
    utility = None if case.trial is None or session.interrupted else measure_utility(case.trial, case.defense, seed)
    guard = None if case.guarded is None or session.interrupted else measure_guard(case.guarded)
    return compose(
        case, rungs, session, judge, priors, clock, seed, decoys, command, protection, utility, guard,
        controls=controls, automatic=automatic,
    )  # fmt: skip


def _prior_baselines(session: Session, judge: Judge) -> Iterator[BaselineRecord]:
    if judge.truth is None:
        return
    for entry, blind in session.prior_only(next(iter(session.observations))):
        scores = judge.evaluate(blind.fields).scores
        yield baseline(f"prior_only_{entry.name}", f"prior only ({entry.name})", scores)


def _case(
    subject: Any,
    loss_fn: Callable[..., Any] | None,
    batch: Any,
    truth: Any,
    domain: Domain | None,
    local: LocalTraining | None,
    num_classes: int | None,
    step: StepLoss | None,
) -> Case:
    if isinstance(subject, Tape):
        return case_of_tape(subject, local)
    if isinstance(subject, Observation):
        return case_of_observation(subject, truth)
    if isinstance(subject, nn.Module):
        if (loss_fn is None and step is None) or batch is None:
            raise ConfigurationError(
                "To audit a model, pass its loss and a private batch: audit(model, loss_fn, batch), or step=... instead "
                "of the loss."
            )
        return case_of_step(
            subject, loss_fn or no_loss, batch, domain=domain, local=local, num_classes=num_classes, step=step
        )
    raise ConfigurationError(
        f"A {type(subject).__name__} cannot be audited; pass a tape from invertigo.watch, a model with loss and batch, "
        "an Observation, or a scenario."
    )


def _with_lineup(case: Case, decoys: int) -> Case:
    if case.truth is None:
        return case
    if case.public is not None:
        return replace(case, lineup=case.public)
    lineup, borrowed = stand_in(case.task.domain, decoys + len(case.truth))
    return replace(case, lineup=lineup, borrowed=borrowed)


def _call(subject: Any, arguments: Mapping[str, Any]) -> str:
    what = {Tape: "tape", Observation: "observation"}.get(type(subject), "model, loss_fn, batch")
    shown = [f"{name}={value!r}" for name, value in arguments.items() if value is not None and _plain(value)]
    return f"invertigo.audit({', '.join([what, *shown])})"


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) or (
        isinstance(value, (list, tuple)) and all(isinstance(v, (str, int, float)) for v in value)
    )


def _scenario_command(subject: Any, given: Mapping[str, Any]) -> str:
    name = subject.title or "SCENARIO" if isinstance(subject, Scenario) else Path(str(subject)).name
    keys = {"seed": "seed", "levels": "adversary.levels", "decoys": "decoys", "attacks": "attacks"}
    keys |= {"defense": "defense", "releases": "adversary.releases"}
    changes = [f"--set {keys[k]}={v}" for k, v in given.items() if k in keys and v is not None and _plain(v)]
    time = [f"--budget {given['budget']}"] if given["budget"] else []
    return " ".join(["invertigo audit", str(name), *changes, *time])
