"""What `invertigo.audit` returns: the record of an audit together with the tensors behind it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from torch import Tensor

from invertigo.auditing.record import (
    AttackRecord,
    AuditRecord,
    FlagRecord,
    MetricRecord,
    VerdictRecord,
    count_recovered,
)
from invertigo.auditing.unproven import unproven
from invertigo.types import Batch, ConfigurationError, Domain, did_you_mean


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    `reconstructions["<prefix>/<field>"]` are the tensors that the attack with `tensors == "<prefix>"` rebuilt, in
    the model's input space; `originals` is the private batch. `companions` are the audits shown beside this one.
    """

    record: AuditRecord
    reconstructions: Mapping[str, Tensor] = field(repr=False)
    originals: Batch | None = field(repr=False)
    domain: Domain
    companions: tuple[Audit, ...] = field(default=(), repr=False)
    strangers: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """Public examples that come nearest to the most exposed reconstruction, for a page that withholds its original."""

    @property
    def verdict(self) -> VerdictRecord:
        """The answer."""
        return self.record.verdict

    @property
    def worst(self) -> AttackRecord | None:
        """The attack that rebuilt most."""
        return self.record.worst

    @property
    def flags(self) -> Sequence[FlagRecord]:
        """What to know before believing a number."""
        return self.record.flags

    @property
    def rows(self) -> list[dict[str, str | int | float | None]]:
        """One flat row per attack and rung, ready for a data frame."""
        return [_row(attack, self.record.metrics) for attack in self.record.attacks]

    def citations(self) -> str:
        """BibTeX for exactly what was used."""
        return "\n\n".join(self.record.citations.values())

    def assert_below(
        self,
        *,
        level: int | None = None,
        recovered: int = 0,
        require_controls: bool = True,
        **limits: float | int,
    ) -> None:
        """Raise AssertionError when more was rebuilt than `limits` allow; made for a test suite.

        `audit.assert_below(psnr=20)` fails when any example was rebuilt at 20 dB or better by any attack (at or below
        rung `level`, if given). An audit that attacked nothing proves nothing, and fails too.

        Args:
            level: highest rung that counts.
            recovered: how many examples may be rebuilt; beyond the metrics' limits.
            require_controls: do not believe that no more can be rebuilt when the controls for it did not pass, or are
                not on record.
            limits: by metric: a bound that the most exposed example must stay on the private side of.
        """
        attacks = [a for a in self.record.ran if level is None or a.level <= level]
        if not any(a.outcomes for a in attacks):
            raise AssertionError(f"Nothing was measured on these rungs, so no limit holds. {self.verdict.headline}")
        most = count_recovered(attacks)
        if most > recovered:
            raise AssertionError(f"{most} examples were rebuilt; {recovered} are allowed. {self.verdict.headline}")
        for name, limit in limits.items():
            _assert_metric(self._metric(name), limit, attacks)
        if self.verdict.status == "inconclusive":
            raise AssertionError(self.verdict.headline)
        fatal = [flag.message for flag in self.flags if flag.severity == "fatal"]
        if fatal:
            raise AssertionError(fatal[0])
        missing = unproven(self.record, level, require_controls=require_controls)
        if missing:
            raise AssertionError(f"That no more can be rebuilt is not shown: {'; '.join(missing)}.")

    def save(self, path: str | Path, *, include_originals: bool | None = None, redact: bool = False) -> Path:
        """Write `*.html` (the page), `*.json` (the record), or a folder with both and the tensors.

        Args:
            include_originals: show and store the private originals; None does so for public data only.
            redact: scores only, no picture and no tensor.
        """
        from invertigo import report

        path = Path(path)
        if path.suffix == ".html":
            return Path(report.write_html(self, path, include_originals=include_originals, redact=redact))
        if path.suffix == ".json":
            return Path(report.write_json(self, path))
        if path.suffix:
            raise ConfigurationError(f"An audit is saved as .html, as .json or into a folder, not as '{path.suffix}'.")
        report.save(self, path, include_originals=include_originals, redact=redact)
        return path

    def _metric(self, name: str) -> MetricRecord:
        known = {metric.name: metric for metric in self.record.metrics}
        if name not in known:
            raise ConfigurationError(
                f"This audit has no metric '{name}'.{did_you_mean(name, known)} It has {', '.join(known)}."
            )
        return known[name]

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        from invertigo.report.terminal import to_text

        return to_text(self.record)


def _assert_metric(metric: MetricRecord, limit: float | int, attacks: Sequence[AttackRecord]) -> None:
    for attack in attacks:
        scores = attack.scores.get(metric.name, [])
        for number, score in enumerate(scores):
            # Written so that NaN, which compares false with everything, fails too.
            safe = score < limit if metric.privacy_loss else score > limit
            if not safe:
                raise AssertionError(
                    f"{attack.attack} (rung {attack.level}) reached {metric.label} {score:.4g} {metric.unit} "
                    f"on example {number + 1}; the limit is {limit:g}."
                )


def _row(attack: AttackRecord, metrics: Sequence[MetricRecord]) -> dict[str, str | int | float | None]:
    row: dict[str, str | int | float | None] = {
        "level": attack.level,
        "attack": attack.attack,
        "status": attack.status,
        "recovered": attack.recovered,
        "identified": attack.identified,
        "label_accuracy": attack.label_accuracy,
        "seconds": attack.seconds,
        "stopped": attack.stopped,
    }
    for metric in metrics:
        scores = attack.scores.get(metric.name)
        row[f"{metric.name}.worst"] = _worst(scores, metric) if scores else None
        row[f"{metric.name}.median"] = median(scores) if scores else None
    return row


def _worst(scores: Sequence[float], metric: MetricRecord) -> float:
    return max(scores) if metric.privacy_loss else min(scores)
