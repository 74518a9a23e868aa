"""Sanity flags: what a reader must know before believing a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from invertigo.auditing.control_flags import CONTROL_RULES
from invertigo.auditing.defense_flags import DEFENSE_RULES
from invertigo.auditing.evidence import Evidence
from invertigo.auditing.record import AttackRecord, FlagRecord
from invertigo.evaluation.outcomes import ENOUGH_DECOYS

VANISHED = 1e-3
"""A relative residual below this has vanished: the candidate reproduces the update for all practical purposes."""
UNEXPLAINED = 0.5
"""An optimisation that leaves this much of the update unexplained has not solved its own problem."""
SATURATED = 1e-7
"""An update shorter than this part of the parameters carries mostly rounding errors."""


Flags = Iterator[FlagRecord]


def raise_flags(evidence: Evidence) -> list[FlagRecord]:
    """Every flag that the evidence calls for, the gravest first."""
    order = {"fatal": 0, "warning": 1, "info": 2}
    flags = [flag for rule in RULES for flag in rule(evidence)]
    return sorted(flags, key=lambda flag: order[flag.severity])


def _vanishing_update(e: Evidence) -> Flags:
    if e.relative_norm < SATURATED:
        yield FlagRecord(
            code="vanishing_update",
            severity="fatal",
            message=f"The update is {e.relative_norm:.0e} times as long as the parameters; rounding drowns it.",
            remedy="Audit an earlier state of the model, where it still learns from these examples.",
        )


def _interrupted(e: Evidence) -> Flags:
    if e.interrupted:
        yield FlagRecord(
            code="interrupted",
            severity="warning",
            message="The audit was interrupted; attacks after that moment were skipped.",
            remedy="Run it again to its end before drawing a conclusion.",
        )


def _failed(e: Evidence) -> Flags:
    for attack in e.attacks:
        if attack.status == "failed":
            yield FlagRecord(
                code="attack_failed",
                severity="warning",
                message=f"{attack.attack} failed on rung {attack.level}: {attack.reason}",
                remedy="The other attacks are unaffected; report this, with the command above, as a bug of the attack.",
            )


def _did_not_converge(e: Evidence) -> Flags:
    cut = [a for a in e.ran if a.stopped in ("budget", "diverged")]
    if cut:
        yield FlagRecord(
            code="did_not_converge",
            severity="warning",
            message=f"These attacks did not run to their end: {_where(cut)}. They may find more with more time.",
            remedy="Give a larger budget.",
        )


def _short_schedule(e: Evidence) -> Flags:
    searched = {attack.attack for attack in e.ran}
    for name, setting, given, usual in e.curtailed:
        if name in searched:
            yield FlagRecord(
                code="short_schedule",
                severity="warning",
                message=f"{name} was set to {setting} {given}; its default is {usual}. A weaker search finds less.",
                remedy="Leave the setting out before relying on what it did not find.",
            )


def _below_baseline(e: Evidence) -> Flags:
    if not e.metrics or not e.baselines:
        return
    metric = e.metrics[0]
    sign = 1 if metric.privacy_loss else -1
    best = max((sign * fmean(b.scores[metric.name]), b.label) for b in e.baselines if metric.name in b.scores)
    scored = [a for a in e.ran if a.scores.get(metric.name) and not a.recovered]
    beaten = [a for a in scored if sign * fmean(a.scores[metric.name]) <= best[0]]
    if beaten:
        yield FlagRecord(
            code="below_baseline",
            severity="warning",
            message=(
                f"On mean {metric.label}, {_where(beaten)} scored no better than '{best[1]}', a guess that does not "
                "read the update. Such a score carries no information."
            ),
            remedy="Do not compare clients or defenses by it.",
        )


def _labels_given(e: Evidence) -> Flags:
    given = [a for a in e.ran if a.labels == "given"]
    if given:
        recovered = [a for a in given if a.recovered]
        yield FlagRecord(
            code="labels_given",
            severity="warning" if recovered else "info",
            message=f"The labels were given to {_where(recovered or given)}, not inferred from the update.",
            remedy="Rung 1 shows what the adversary reaches without them.",
        )


def _statistics_assumed(e: Evidence) -> Flags:
    level = e.statistics_assumed_from
    if level is not None and any(a.level >= level for a in e.ran):
        yield FlagRecord(
            code="statistics_assumed",
            severity="warning",
            message=f"From rung {level} on, attacks knew the BatchNorm statistics, which this client does not share.",
            remedy="Read rungs below it for the client as it is.",
        )


def _few_examples(e: Evidence) -> Flags:
    if e.num_examples is not None and e.num_examples < 30:
        yield FlagRecord(
            code="few_examples",
            severity="info",
            message=f"{e.num_examples} examples stand behind these numbers; under 30 they are indicative.",
            remedy="Audit more batches before comparing settings.",
        )


def _exact_beats_optimiser(e: Evidence) -> Flags:
    exact = max((a for a in e.ran if a.exact), key=lambda a: a.recovered, default=None)
    others = [a for a in e.ran if not a.exact and a.outcomes]
    if exact is not None and others and exact.recovered > max(a.recovered for a in others):
        yield FlagRecord(
            code="exact_beats_optimiser",
            severity="info",
            message=(
                f"{exact.attack} solved for more than any optimisation reached, so optimisation alone would have "
                "shown this client safer than it is."
            ),
        )


def _not_identified(e: Evidence) -> Flags:
    vanished = [
        a
        for a in e.ran
        if not a.exact and a.residual is not None and a.residual <= VANISHED and "nothing" in a.outcomes
    ]
    if vanished:
        yield FlagRecord(
            code="not_identified",
            severity="info",
            message=(
                f"{_where(vanished)} reproduced the update without finding every example: several batches explain "
                "this update equally well (for instance, mixtures of examples of one class)."
            ),
            remedy="An adversary with prior knowledge of the data may still tell them apart.",
        )


def _unexplained(e: Evidence) -> Flags:
    lost = [
        a
        for a in e.ran
        if not a.exact
        and a.residual is not None
        and a.residual > UNEXPLAINED
        and a.stopped in ("schedule", "converged")
    ]
    if lost:
        yield FlagRecord(
            code="update_unexplained",
            severity="warning",
            message=(
                f"{_where(lost)} ended with a batch that explains less than half of the update: the optimiser got "
                "stuck, or the update is noisy. Its failure says little about what the update holds."
            ),
            remedy="Give it more iterations and restarts, or a stronger optimiser.",
        )


def _range_inferred(e: Evidence) -> Flags:
    if e.range_inferred:
        yield FlagRecord(
            code="range_inferred",
            severity="warning",
            message="The range of the inputs was read off the private batch, which an adversary would have to guess.",
            remedy="Pass domain=Images(shape, mean=..., std=...) with the normalisation that your model uses.",
        )


def _no_decoys(e: Evidence) -> Flags:
    wanted = max(e.wanted_decoys, ENOUGH_DECOYS)
    if e.scored and e.decoys < wanted:
        found = "No public examples were" if e.decoys == 0 else f"Only {e.decoys} public examples were"
        yield FlagRecord(
            code="few_decoys" if e.decoys else "no_decoys",
            severity="info" if e.decoys else "warning",
            message=f"{found} at hand, so whether an observer would recognise the examples was not measured against "
            f"{wanted} others.",
            remedy=f"Pass public= with at least {wanted} examples of the same kind, and ask for no fewer decoys.",
        )


def _borrowed_decoys(e: Evidence) -> Flags:
    if e.borrowed and e.decoys:
        yield FlagRecord(
            code="borrowed_decoys",
            severity="info",
            message=f"The decoys and the public baselines come from the bundled set '{e.borrowed}', not from data like "
            "the client's; among strangers of another kind an example is easier to pick out.",
            remedy="Pass public= with examples of the same kind.",
        )


def _dropout(e: Evidence) -> Flags:
    if e.dropout and e.ran:
        yield FlagRecord(
            code="dropout_unmodelled",
            severity="warning",
            message="This client trains with dropout, whose random masks the attacks replaced by their average.",
            remedy="An adversary that also optimises over the masks may find more.",
        )


def _remarks(e: Evidence) -> Flags:
    yield from e.remarks


RULES: tuple[Callable[[Evidence], Flags], ...] = (
    _vanishing_update,
    _interrupted,
    _failed,
    _did_not_converge,
    _short_schedule,
    _unexplained,
    _below_baseline,
    _labels_given,
    _statistics_assumed,
    _range_inferred,
    _no_decoys,
    _borrowed_decoys,
    _dropout,
    _remarks,
    _exact_beats_optimiser,
    _not_identified,
    _few_examples,
    *CONTROL_RULES,
    *DEFENSE_RULES,
)


def _where(attacks: Sequence[AttackRecord]) -> str:
    """`dlg (rungs 1, 2), auto (rung 1)`."""
    rungs: dict[str, dict[int, None]] = {}
    for attack in attacks:  # a naive and an informed run on one rung are named once
        rungs.setdefault(attack.attack, {})[attack.level] = None
    return ", ".join(
        f"{name} (rung{'s' if len(levels) > 1 else ''} {', '.join(map(str, levels))})" for name, levels in rungs.items()
    )
