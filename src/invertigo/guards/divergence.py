"""Is a loss beyond all bounds made by a few examples, as an attack makes it, or by most, as a diverged run does?"""

from __future__ import annotations

from dataclasses import replace

from invertigo.guards.few_examples import participation, whole_norms
from invertigo.guards.signals import signals_of
from invertigo.types import Finding, Local, Received

BROAD, WORTH_ASKING = 0.25, 0.05
"""Share of the batch that makes up its gradient from which nobody is singled out; p-value from which it is asked."""


def unless_diverged(finding: Finding, received: Received, local: Local) -> Finding:
    """The finding as one of divergence where a quarter of the batch or more makes up its gradient.

    An attack by losses leaves the gradient to the few examples that it wants. A run that has diverged costs nearly all
    examples, singles out none, and can recover: then the server may be honest, and the send gate measures what leaks.
    """
    if finding.p_value is None or finding.p_value > WORTH_ASKING:
        return finding
    norms = whole_norms(list(signals_of(received, local).layers.values()))
    if norms is None or not bool(norms.isfinite().all()) or participation(norms) < BROAD:
        return finding
    action = "Ask whether the run has diverged (a smaller learning rate), and whether other clients see it too."
    return replace(finding, kind="divergence", action=action)
