"""The loss of the client's own examples: too high for any honest model, or suddenly higher than it was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from invertigo.guards.divergence import unless_diverged
from invertigo.guards.nulls import predictive_p
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.guards.signals import signals_of
from invertigo.types import Finding, Gate, History, Local, Paper, Received

PROBE = frozenset({"probe"})


@register
@dataclass(frozen=True, kw_only=True)
class LossLevel:
    r"""$p = \min(1, C e^{-L})$ for the mean cross-entropy $L$ over the probe batch.

    For a model that is calibrated, or that guesses, $1 / (C p(y|x))$ is an e-value: its mean is one. The geometric mean
    over examples, $e^{L} / C$, is no larger than their mean, however the examples depend, so Markov's inequality gives
    the p-value. A client whose examples are all of one rare class therefore raises no alarm.

    Source: the family of anomalous loss dynamics (our reading); the e-value is ours. Needs `Task.num_classes`.
    """

    name: ClassVar[str] = "loss_level"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset({"probe", "classes"})

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        loss, classes = signals_of(received, local).loss, local.task.num_classes or 1
        if math.isnan(loss):
            return ()
        p = min(1.0, classes * math.exp(-max(0.0, min(loss, 700.0))))
        message = f"The loss on the client's own examples is {loss:.3g}; guessing costs {math.log(classes):.3g}."
        action = "Skip the round: a loss like this leaves the gradient to the few examples that it is made of."
        found = Finding(self.name, self.gate, "malice", loss, p, message, action)
        return (unless_diverged(found, received, local),)


@register
@dataclass(frozen=True, kw_only=True)
class LossJump:
    """The loss against its trend in the rounds that passed; rounds without this client leave gaps.

    Args:
        floor: deviation of an honest loss around its trend that is allowed for before there are rounds to learn it.

    Source: the family of anomalous loss dynamics (our reading); the predictive t-test is ours.
    """

    name: ClassVar[str] = "loss_jump"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset({"probe", "history"})

    floor: float = 0.25

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        past, loss = history.clean("loss_level"), signals_of(received, local).loss
        if not past or math.isnan(loss):
            return ()
        p = predictive_p(past, loss, floor=self.floor)
        message = (
            f"The loss on the client's own examples is {loss:.3g}, after {past[-1][1]:.3g} in round {past[-1][0]}."
        )
        action = "Skip the round, or ask other clients whether theirs rose as well."
        found = Finding(self.name, self.gate, "malice", loss - past[-1][1], p, message, action)
        return (unless_diverged(found, received, local),)


@register
@dataclass(frozen=True, kw_only=True)
class LossTail:
    r"""$p = \min(1, \sqrt C / \overline{e^{\ell_i / 2}})$ for the examples' own cross-entropies $\ell_i$.

    Under a calibrated model, $E\, p(y|x)^{-1/2} = \sum_y \sqrt{p(y|x)} \le \sqrt C$, so $e^{\ell/2} / \sqrt C$ has a
    mean of at most one, and so has the average over the batch, however the examples depend. The exponent 1/2 allows for
    honest models that are overconfident. Loss shaping, which gives the wanted examples nearly all of the loss,
    shows in this average before it shows in `loss_level`.

    Source: the family of anomalous loss dynamics (our reading); the e-value is ours. Needs `Task.num_classes`.
    """

    name: ClassVar[str] = "loss_tail"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset({"probe", "classes"})

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        losses, classes = signals_of(received, local).losses, local.task.num_classes or 1
        if losses is None or not bool(losses.isfinite().all()):
            return ()
        evidence = float((losses.double() / 2).logsumexp(0)) - math.log(len(losses)) - 0.5 * math.log(classes)
        worst = int(losses.argmax())
        total = f"all together {float(losses.sum()):.3g}"
        message = f"Example {worst} of {len(losses)} costs {float(losses[worst]):.3g}; {total}."
        action = "Skip the round: the gradient is left to the examples that cost so much."
        p = math.exp(-min(max(0.0, evidence), 700.0))
        found = Finding(self.name, self.gate, "malice", float(losses[worst]), p, message, action)
        return (unless_diverged(found, received, local),)
