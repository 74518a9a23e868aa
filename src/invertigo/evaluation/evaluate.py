"""How much of the private batch a reconstruction shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertigo.domains import Images
from invertigo.evaluation.graph_outcomes import graph_outcomes
from invertigo.evaluation.intervals import bootstrap, proportion
from invertigo.evaluation.label_accuracy import label_accuracy, node_label_accuracy
from invertigo.evaluation.outcomes import ENOUGH_DECOYS, Outcome, outcomes
from invertigo.types import Batch, Domain, Identification, Interval, MismatchError, Reconstruction, Scores

ENOUGH_EXAMPLES = 30
OUTCOMES = {"graphs": graph_outcomes}
"""How the scores of a domain are judged, where it is not as pictures are."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of a reconstruction beside those of guesses that read nothing from the update.

    `identification` is None without decoys, `label_accuracy` without labels on both sides. `intervals[metric]` is
    the mean over examples with its bootstrap interval, `recovered` the share rebuilt exactly or recognisably with
    Wilson's.
    """

    scores: Scores
    baselines: Mapping[str, Scores]
    identification: Identification | None
    outcomes: list[Outcome]
    label_accuracy: float | None
    intervals: Mapping[str, Interval]
    recovered: Interval
    domain: Domain

    def summary(self) -> str:
        """A text table: each metric's worst case for privacy, mean with interval, and best baseline."""
        rows = [("metric", "worst", "mean", "95% interval", "best baseline")]
        for metric in self.domain.metrics:
            worst = max if metric.privacy_loss else min
            values = self.scores.per_example[metric.name]
            interval = self.intervals[metric.name]
            best, name = worst((s.mean(metric.name), name) for name, s in self.baselines.items())
            rows.append(
                (
                    f"{metric.label} {metric.unit}".strip(),
                    f"{worst(values.tolist()):.4g}",
                    f"{interval.estimate:.4g}",
                    f"{interval.low:.4g} to {interval.high:.4g}",
                    f"{best:.4g} ({name})",
                )
            )
        return "\n".join([_table(rows), "", *self._findings()])

    def _findings(self) -> list[str]:
        n, found = len(self.scores), self.recovered
        lines = [
            f"recovered: {sum(o != 'nothing' for o in self.outcomes)} of {n} "
            f"({self.outcomes.count('exact')} exact), {found.low:.0%} to {found.high:.0%}"
        ]
        if self.identification is not None:
            few = "" if self.identification.decoys >= ENOUGH_DECOYS else f" (fewer than {ENOUGH_DECOYS}: indicative)"
            hits = int(self.identification.identified.sum())
            lines.append(f"identified: {hits} of {n} among {self.identification.decoys} decoys{few}")
        if self.label_accuracy is not None:
            lines.append(f"labels: {self.label_accuracy:.0%} right")
        if n < ENOUGH_EXAMPLES:
            lines.append(f"{n} examples: indicative only (fewer than {ENOUGH_EXAMPLES})")
        return lines


def evaluate(
    reconstruction: Reconstruction | Mapping[str, Tensor] | Tensor,
    truth: Batch | Mapping[str, Tensor] | Tensor,
    *,
    domain: Domain | None = None,
    public: Batch | None = None,
    decoys: Batch | None = None,
    baselines: Mapping[str, Scores] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score a reconstruction against the private batch, after matching the two in whichever order they come.

    Both hold named tensors as the model reads them; bare tensors are taken to be the images. Without `domain` they
    are images whose range is inferred from the truth. `public` data serves the baselines, and as `decoys` too where
    those are not given; 100 or more make an identification count. `baselines` are those of an earlier evaluation of
    the same truth, which saves computing them again.

    Raises: MismatchError when the shapes do not fit; InvalidValueError for an empty or non-finite truth.
    """
    batch = truth if isinstance(truth, Batch) else Batch(_named(truth, domain))
    fields = reconstruction.fields if isinstance(reconstruction, Reconstruction) else _named(reconstruction, domain)
    domain = domain or _inferred(batch)
    decoys = decoys or public
    scores = domain.score(batch, fields)
    baselines = domain.baselines(batch, public) if baselines is None else baselines
    identification = None if decoys is None else domain.identify(batch, fields, decoys)
    found = OUTCOMES.get(domain.name, outcomes)(scores, identification, baselines)
    generator = torch.Generator().manual_seed(seed)
    return Evaluation(
        scores=scores,
        baselines=baselines,
        identification=identification,
        outcomes=found,
        label_accuracy=_labels_right(batch, fields, domain, scores.matching),
        intervals={name: bootstrap(values, generator=generator) for name, values in scores.per_example.items()},
        recovered=proportion(sum(outcome != "nothing" for outcome in found), len(batch)),
        domain=domain,
    )


def _named(tensors: Mapping[str, Tensor] | Tensor, domain: Domain | None) -> Mapping[str, Tensor]:
    return {domain.inputs if domain else Images.inputs: tensors} if isinstance(tensors, Tensor) else tensors


def _inferred(truth: Batch) -> Domain:
    if Images.inputs not in truth.fields:
        raise MismatchError(
            f"The truth holds the fields {list(truth.fields)} and no '{Images.inputs}', so its kind "
            "cannot be inferred; pass domain=..."
        )
    return Images.infer(truth[Images.inputs])[0]


def _labels_right(truth: Batch, fields: Mapping[str, Tensor], domain: Domain, matching: Tensor) -> float | None:
    if domain.target not in truth.fields or domain.target not in fields:
        return None
    true, found = truth[domain.target], fields[domain.target]
    if true.is_floating_point() and not _chosen(true):
        return _yes_or_no_right(true, found, matching)
    if true.ndim > 1 and not true.is_floating_point():
        return node_label_accuracy(true, found, matching) if found.ndim > 1 else None
    return label_accuracy(true, found, matching)


def _chosen(true: Tensor) -> bool:
    """Scores over several classes, of which the largest counts."""
    return true.ndim == 2 and true.shape[1] > 1 and bool(((true.sum(1) - 1).abs() < 1e-3).all() & (true >= 0).all())


def _yes_or_no_right(true: Tensor, found: Tensor, matching: Tensor) -> float | None:
    """Share of zeros and ones found; None of other numbers, which are neither right nor wrong."""
    if not bool(((true == 0) | (true == 1)).all()) or true.numel() // len(true) != found.numel() // max(len(found), 1):
        return None
    paired = found.reshape(len(found), -1)[matching.clamp_min(0)].to(true)
    right = ((paired > 0.5) == (true.reshape(len(true), -1) > 0.5)).double().mean(1)
    return (right * (matching >= 0)).mean().item()


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
