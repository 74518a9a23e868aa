"""A statistic held against the client's own clean rounds."""

from __future__ import annotations

from dataclasses import replace

from invertigo.guards.nulls import conformal_p
from invertigo.types import Finding, History


def conformal(finding: Finding, history: History) -> Finding:
    """The finding as a test of malice, with the conformal p-value of its statistic; as it is without a clean round."""
    past = [value for _, value in history.clean(finding.rule)]
    p = conformal_p(past, finding.statistic)
    return finding if p is None else replace(finding, kind="malice", p_value=p)
