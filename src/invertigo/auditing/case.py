"""What is being audited: a client whose training can be repeated, or one update that was handed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from invertigo.auditing.assumed import assumed_known, beside, trained_elsewhere
from invertigo.auditing.class_count import count_classes
from invertigo.auditing.graph_cases import graph_remarks
from invertigo.auditing.guarded import GuardTrial
from invertigo.auditing.ladder import Rung, plan_ladder
from invertigo.auditing.protection import check_protects, make_defense
from invertigo.auditing.record import FlagRecord
from invertigo.auditing.trial import generator_for
from invertigo.auditing.utility import TrialRun
from invertigo.domains import Graphs, Images
from invertigo.evaluation import Reader
from invertigo.federation import Round, Tape, mode_matters, native_level, observe_round
from invertigo.models import graph_step
from invertigo.types import (
    ActiveAttack,
    Batch,
    ConfigurationError,
    Defense,
    Domain,
    InvalidValueError,
    LocalTraining,
    Observation,
    Plant,
    StepLoss,
    Task,
    ThreatLevel,
)


@dataclass(frozen=True)
class Case:
    """A task, the client's recipe, and what is needed to observe and to score it.

    `received` is an update that was handed over and cannot be repeated; `recorded` gives the update of a watched step
    as a rung sees it, which is preferred over a repetition. Without `truth` nothing can be scored. `public` is what
    the adversary may use; `lineup` serves as decoys and baselines, and `borrowed` names the bundled set it comes from
    when it is not of the client's own kind. `task` is the one that `defense` has prepared, which `replaces_task` when
    it is another than the client began with; `releases` are sent for the same batch. `trial` is the training that
    shows what the defense costs, `reader` a classifier that reads what was rebuilt, `guarded` a federation in which
    guards are measured.
    """

    task: Task
    local: LocalTraining
    truth: Batch | None = None
    received: Observation | None = None
    recorded: Callable[[ThreatLevel], Observation] | None = None
    public: Batch | None = None
    lineup: Batch | None = None
    borrowed: str = ""
    others: Sequence[Batch] = ()
    defense: Defense | None = None
    replaces_task: bool = False
    releases: int = 1
    trial: TrialRun | None = None
    guarded: GuardTrial | None = None
    reader: Reader | None = None
    range_inferred: bool = False
    title: str = ""
    private: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    known: Sequence[str] = ()
    """Fields of the batch that the adversary knows from rung 2 on, beside what the rung itself tells."""
    remarks: Sequence[FlagRecord] = ()
    """What a reader should know of the private examples and the model."""

    @property
    def num_examples(self) -> int | None:
        """Size of the private batch, when anyone knows it."""
        if self.truth is not None:
            return len(self.truth)
        return self.received.num_examples if self.received is not None else None

    @property
    def repeatable(self) -> bool:
        """The client's training can be repeated on its data, so that other rungs can be examined too."""
        return self.received is None and self.truth is not None and self.task.domain.target in self.truth.fields

    def rungs(
        self, requested: Sequence[int] | None, public_attacks: bool, planting_attacks: bool = False
    ) -> list[Rung]:
        """The ladder of this case."""
        if self.received is not None:
            return _one_rung(
                effective_level(self.received), "only one update was given, as an adversary on rung {} holds it"
            )
        if not self.repeatable:
            unseen = "the targets of this step were not seen, so only rung {} can be examined"
            return _one_rung(native_level(self.task, self.local), unseen)
        return plan_ladder(
            native_level(self.task, self.local),
            mode_matters=mode_matters(self.task),
            clients=1 + len(self.others),
            public=self.public is not None,
            public_attacks=public_attacks,
            planting_attacks=planting_attacks,
            requested=requested,
        )

    def _happened(self, level: ThreatLevel) -> bool:
        """The client's real update is what an adversary on this rung sees."""
        what_if = level >= ThreatLevel.INFERENCE_MODE > native_level(self.task, self.local)
        return level is not ThreatLevel.AGGREGATE and not what_if and level < ThreatLevel.AUXILIARY

    def observe(self, level: ThreatLevel, seed: int) -> Round:
        """The client's update as an adversary on rung `level` holds it, with what the defense did to it."""
        if self.received is not None:
            knowledge = replace(self.received.knowledge, level=effective_level(self.received))
            return Round(replace(self.received, knowledge=knowledge))
        plain = self.defense is None and self.releases == 1
        if self.recorded is not None and plain and self._happened(level):
            return Round(self.recorded(level))
        if self.truth is None:
            raise ConfigurationError("There is neither an update nor a private batch, so there is nothing to audit.")
        return self._round(level, seed, self.others if level is ThreatLevel.AGGREGATE else ())

    def planted(self, attack: ActiveAttack, seed: int) -> Round:
        """The update as a malicious server receives it that sent what `attack` plants; with other clients, the mean.

        Raises: InvertigoError when the attack finds no place in this model, or the plant does not fit.
        """
        if self.truth is None:
            raise ConfigurationError("Only a client whose training can be repeated can be sent a planted model.")
        plant = attack.plant(
            self.task,
            self.local,
            public=self.public,
            num_examples=len(self.truth),
            clients=1 + len(self.others),
            generator=generator_for(seed, "plant", attack.name),
        )
        return self._round(ThreatLevel.MALICIOUS, seed, self.others, plant)

    def _round(self, level: ThreatLevel, seed: int, others: Sequence[Batch], plant: Plant | None = None) -> Round:
        assert self.truth is not None
        return observe_round(
            self.task,
            self.truth,
            self.local,
            level=level,
            # The same seed on every rung: the client's dropout masks do not depend on who looks.
            generator=generator_for(seed, "client"),
            public=self.public,
            clients=1 + len(others),
            others=others or None,
            defense=self.defense,
            secret=generator_for(seed, "defense", device=next(self.task.model.parameters()).device),
            releases=self.releases,
            known=self.known,
            plant=plant,
        )

    def defended(self, wanted: str | Mapping[str, Any] | Defense | None, releases: int, seed: int) -> Case:
        """The same client with a defense; it prepares the model unless the update was handed over.

        Raises: InvertigoError when the defense is not known or not made for this client.
        """
        if releases < 1:
            raise InvalidValueError(f"releases={releases}; an adversary sees an update at least once.")
        if releases > 1 and self.received is not None:
            raise InvalidValueError(
                f"releases={releases}, but one update was handed over; pass Observation(..., releases=(...)) instead."
            )
        if wanted is None:
            return replace(self, releases=releases)
        defense = make_defense(wanted)
        check_protects(defense, self.task.domain.name)
        task = self.task if self.received is not None else prepared(defense, self.task, self.public, seed)
        changed = task is not self.task
        return replace(self, task=task, defense=defense, releases=releases, replaces_task=changed)


def prepared(defense: Defense, task: Task, public: Batch | None, seed: int) -> Task:
    """The task that clients with this defense train."""
    device = next(task.model.parameters()).device
    return defense.prepare(task, public, generator=generator_for(seed, "prepare", device=device))


def case_of_tape(tape: Tape, local: LocalTraining | None) -> Case:
    """A watched training step: its own update where that is what a rung sees, repeated where it is a what-if."""
    shares = local is not None and local.shares_buffers

    def recorded(level: ThreatLevel) -> Observation:
        return tape.observation(level=level, shares_buffers=shares)

    recipe = replace(tape.local, shares_buffers=shares)
    title = f"{type(tape.task.model).__name__} · {_recipe(recipe)} · batch {len(tape.batch)}"
    facts = {
        "title": title,
        "remarks": (*assumed_known(tape.assumed), *trained_elsewhere(tape.unwatched)),
        "range_inferred": tape.range_observed,
    }
    return Case(tape.task, recipe, tape.batch, recorded=recorded, **facts)


def effective_level(observation: Observation) -> ThreatLevel:
    """The rung that this observation's knowledge amounts to, whatever it was labelled with."""
    known = observation.knowledge
    level = max(known.level, native_level(observation.task, observation.local))
    if known.labels is not None or known.batch_statistics is not None:
        level = max(level, ThreatLevel.STATISTICS)
    if known.public is not None:
        level = max(level, ThreatLevel.AUXILIARY)
    return ThreatLevel(level)


def _one_rung(level: ThreatLevel, reason: str) -> list[Rung]:
    return [Rung(rung, rung == level, "" if rung == level else reason.format(int(level))) for rung in ThreatLevel]


def case_of_step(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: Batch | Mapping[str, Tensor] | Sequence[Tensor],
    *,
    domain: Domain | None,
    local: LocalTraining | None,
    num_classes: int | None,
    step: StepLoss | None = None,
) -> Case:
    """A client described by its model, its loss (or its whole step) and its private batch."""
    fields = _fields(batch, domain)
    domain, inferred = (domain, False) if domain is not None else Images.infer(fields["images"])
    truth = Batch(fields)
    on_graphs = isinstance(domain, Graphs)
    others = beside(domain, truth, described=step is not None)
    known = {name: truth[name] for name in others}
    task = Task(model, loss, domain, num_classes, step or (graph_step(loss) if on_graphs else None), known=known)
    task = replace(task, num_classes=num_classes or count_classes(task, truth))
    local = local or LocalTraining(mode="train" if model.training else "eval")
    title = f"{type(model).__name__} · {_recipe(local)} · batch {len(truth)}"
    remarks = (*(graph_remarks(task, truth) if on_graphs else ()), *assumed_known(others))
    return Case(task, local, truth, range_inferred=inferred, title=title, remarks=remarks)


def _fields(batch: Batch | Mapping[str, Tensor] | Sequence[Tensor], domain: Domain | None) -> dict[str, Tensor]:
    if isinstance(batch, Batch):
        return dict(batch.fields)
    if isinstance(batch, Mapping):
        return dict(batch)
    if len(batch) != 2:
        raise ConfigurationError(
            f"The batch has {len(batch)} parts; pass (inputs, targets), a dictionary of named tensors, or a Batch."
        )
    names = (domain.inputs, domain.target) if domain is not None else ("images", "labels")
    return dict(zip(names, batch))


def _recipe(local: LocalTraining) -> str:
    name = "FedSGD" if local.sends == "gradient" else "FedAvg"
    return f"{name} · {'training' if local.mode == 'train' else 'inference'} mode"


def case_of_observation(observation: Observation, truth: Any) -> Case:
    """One update from somewhere else, with the private batch when it is known."""
    domain = observation.task.domain
    batch = None if truth is None else Batch(_fields(truth, domain))
    if batch is not None and domain.inputs not in batch.fields:
        raise InvalidValueError(f"The truth has the fields {list(batch.fields)}; scoring needs '{domain.inputs}'.")
    size = observation.num_examples or (len(batch) if batch is not None else None)
    of = f" · batch {size}" if size else ""
    title = f"{type(observation.task.model).__name__} · {_recipe(observation.local)}{of}"
    return Case(observation.task, observation.local, batch, received=observation, title=title)
