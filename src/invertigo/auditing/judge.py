"""What became of a reconstruction: scores, ranks and outcomes, written into the record of its attack."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invertigo.auditing.controls.schedule import planned, seconds_needed
from invertigo.auditing.portfolio import Entry
from invertigo.auditing.record import AttackRecord, BaselineRecord
from invertigo.auditing.trial import Trial
from invertigo.evaluation import Criteria, Evaluation, Reader, count_accuracy, evaluate
from invertigo.evaluation.reader import READABLE
from invertigo.types import Batch, Domain, Observation, Reconstruction, Scores


@dataclass
class Judge:
    """Holds the truth, and scores against it; `baselines` fills with the guesses that read nothing."""

    domain: Domain
    truth: Batch | None
    lineup: Batch | None
    decoys: int
    reader: Reader | None = None
    baselines: dict[str, BaselineRecord] = field(default_factory=dict)
    _guesses: Mapping[str, Scores] | None = None

    def __call__(self, entry: Entry, observation: Observation, trial: Trial) -> AttackRecord:
        """The record of one attack; without truth it has no scores."""
        level, found = int(observation.knowledge.level), trial.reconstruction
        informed = observation.knowledge.view is not None
        facts: dict = {
            "level": level,
            "attack": entry.name,
            "paper": entry.attack.paper.key,
            "exact": entry.attack.exact,
            "informed": informed,
            "status": trial.status,
            "reason": trial.reason,
            "seconds": trial.seconds,
        }
        if found is not None:
            facts |= self._run(entry, observation, trial, found)
            facts["tensors"] = f"{level}-{entry.name}" + ("-informed" if informed else "")
        if found is not None and self.truth is not None:
            facts |= self._scores(self.evaluate(found.fields))
            facts["scores"] |= self._read(found.fields, facts["matching"])
            facts["label_accuracy"] = self._labels_found(found)
        return AttackRecord.model_validate(facts)

    def evaluate(self, fields: Mapping[str, Tensor]) -> Evaluation:
        """Scores against the truth, and the baselines beside them."""
        if self.truth is None:
            raise ValueError("There is no truth to score against.")
        lineup = self.lineup
        decoys = None if lineup is None else lineup.select(slice(0, self.decoys))
        guesses = self.guess()
        return evaluate(fields, self.truth, domain=self.domain, public=lineup, decoys=decoys, baselines=guesses)

    def guess(self) -> Mapping[str, Scores]:
        """Scores of the guesses that read nothing, which are the same beside every attack; fills `baselines`."""
        if self.truth is not None and self._guesses is None:
            self._guesses = self.domain.baselines(self.truth, self.lineup)
            labels = getattr(self.domain, "baseline_labels", {})
            self.baselines |= {k: baseline(k, labels.get(k, k), scores) for k, scores in self._guesses.items()}
        return self._guesses or {}

    def warm_up(self) -> float:
        """Seconds that judging takes here, by the baselines; what breaks will break again beside the first attack."""
        started = time.monotonic()
        with suppress(Exception):
            self.guess()
        return (time.monotonic() - started) / max(1, len(self.baselines))

    @property
    def available_decoys(self) -> int:
        """Examples that could stand in a line-up."""
        return 0 if self.lineup is None else min(len(self.lineup), self.decoys)

    @property
    def rivals(self) -> list[BaselineRecord]:
        """The baselines that a guesser without information can reach; those that look at the truth are left out."""
        return [record for name, record in self.baselines.items() if name not in Criteria().oracles]

    def _run(self, entry: Entry, observation: Observation, trial: Trial, found: Reconstruction) -> dict:
        given = observation.knowledge.labels is not None and not entry.attack.exact
        cut = trial.shortened and found.stopped == "schedule"
        notes = list(found.notes)
        if cut:
            notes.append("The schedule was shortened to fit the budget.")
        return {
            "stopped": "budget" if cut else found.stopped,
            "iterations": trial.iterations,
            "planned_iterations": planned(entry.attack),
            "seconds_needed": seconds_needed(entry.attack, trial.iterations, trial.seconds),
            "objective": found.objective,
            "residual": trial.residual,
            "residual_up_to_scale": trial.residual_up_to_scale,
            "trace": list(found.trace),
            "labels": "inferred" if found.labels_inferred else ("given" if given else "unused"),
            "notes": notes,
        }

    def _read(self, fields: Mapping[str, Tensor], matching: list[int]) -> dict[str, list[float]]:
        if self.reader is None or self.truth is None:
            return {}
        return {READABLE.name: self.reader.scores(self.truth, fields, torch.tensor(matching))}

    def _labels_found(self, found: Reconstruction) -> float | None:
        """Share of the batch's labels that were inferred, whichever picture they ended up beside; None if given."""
        target = self.domain.target
        if self.truth is None or not found.labels_inferred or target not in found.fields:
            return None
        return count_accuracy(self.truth[target], found.fields[target]) if target in self.truth.fields else None

    def _scores(self, found: Evaluation) -> dict:
        seen = found.identification
        return {
            "scores": {name: values.tolist() for name, values in found.scores.per_example.items()},
            "matching": found.scores.matching.tolist(),
            "ranks": [] if seen is None else seen.ranks.tolist(),
            "decoys": 0 if seen is None else seen.decoys,
            **self._coherent(found),
        }

    def _coherent(self, found: Evaluation) -> dict:
        """Outcomes beside the headline score: what scores like a guess that reads nothing was not rebuilt.

        Such a picture may still show something (moved, or too bright), so it is kept as a doubt.
        """
        metric = self.domain.metrics[0]
        sign = 1 if metric.privacy_loss else -1
        rivals = [sign * rival.per_example[metric.name] for k, rival in self.guess().items() if k in self._blind]
        if not rivals:
            return {"outcomes": list(found.outcomes)}
        above = sign * found.scores.per_example[metric.name] > torch.stack(rivals).amax(0)
        doubtful = [i for i, o in enumerate(found.outcomes) if o == "recognisable" and not above[i]]
        outcomes = ["nothing" if i in doubtful else outcome for i, outcome in enumerate(found.outcomes)]
        return {"outcomes": outcomes, "doubtful": doubtful}

    @property
    def _blind(self) -> set[str]:
        """Names of the guesses that do not look at the truth."""
        return {record.name for record in self.rivals}


def baseline(name: str, label: str, scores: Scores) -> BaselineRecord:
    """Scores of a guess that reads nothing from the update."""
    return BaselineRecord(
        name=name, label=label, scores={metric: values.tolist() for metric, values in scores.per_example.items()}
    )
