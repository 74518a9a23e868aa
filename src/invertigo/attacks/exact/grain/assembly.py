"""From counted neighbourhoods to graphs: one graph, a batch of several, or one whose nodes have labels."""

from __future__ import annotations

from math import gcd

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.batches import Division, Pulls, divisions, graph_counts, pulls
from invertigo.attacks.exact.grain.certificate import certify, certify_batch
from invertigo.attacks.exact.grain.counts import SECONDS_TO_WEIGH, whole_numbers
from invertigo.attacks.exact.grain.equivalents import EquivalentGraphs
from invertigo.attacks.exact.grain.listing import Listing
from invertigo.attacks.exact.grain.node_certificate import labelled
from invertigo.attacks.exact.grain.pipeline import Evidence, read_rows
from invertigo.attacks.exact.grain.recovery import GraphRecovery
from invertigo.types import Observation

DIVISIONS = 8
"""Ways to share neighbourhoods out among the graphs of a batch that are tried."""


def assembled(observation: Observation, anatomy: Anatomy, evidence: Evidence, listing: Listing) -> GraphRecovery | None:
    """What the evidence gives, or None. Raises: OutOfBudget."""
    if anatomy.model.level == "node":
        return labelled(observation, anatomy, evidence, listing, listing.slack)
    if (observation.num_examples or 1) > 1:
        return _taken_apart(observation, anatomy, evidence, listing)
    found = _single(evidence, listing)
    if found is None or not len(found):
        return None
    with listing.budget.stage("certificate"):
        return certify(observation, anatomy, evidence, found, listing)


def _single(evidence: Evidence, listing: Listing) -> EquivalentGraphs | None:
    shares = evidence.shares
    if shares is None or shares.residual > listing.slack:
        return None
    total = shares.weights.sum()
    counts = whole_numbers(shares.weights / total, listing.most_nodes, max(100 * shares.residual, 1e-5))
    if counts is None or abs(float(total) - 1) > 10 * listing.slack:
        return None
    return listing.graphs(evidence, counts.tolist(), shares.groups)


def _taken_apart(
    observation: Observation, anatomy: Anatomy, evidence: Evidence, listing: Listing
) -> GraphRecovery | None:
    if not len(evidence.levels[-1]) or evidence.features is None:
        return None
    with listing.budget.stage("counts"):
        rows, classes = read_rows(anatomy, evidence.levels[-1], evidence.features), observation.task.num_classes or 2
        unknowns = len(rows) * classes
        # Least squares without bounds takes all unknowns at once, several times as long as with them.
        listing.budget.afford(5 * SECONDS_TO_WEIGH * unknowns**3, f"weighing {len(rows)} neighbourhoods")
        pulled = pulls(anatomy, rows, classes)
    if pulled.residual > listing.slack:
        return None
    with listing.budget.stage("division"):
        ways = divisions(pulled, observation.num_examples or 1, listing.budget)
    for division in ways[:DIVISIONS]:
        recovery = _divided(observation, anatomy, evidence, pulled, division, listing)
        if recovery is not None and recovery.gradient_distance < 10 * listing.slack:
            return recovery
    return None


def _divided(
    observation: Observation,
    anatomy: Anatomy,
    evidence: Evidence,
    pulled: Pulls,
    division: Division,
    listing: Listing,
) -> GraphRecovery | None:
    parts = []
    for graph in range(len(division.labels)):
        counts, groups = graph_counts(pulled, division, graph)
        share = gcd(*counts)
        found = listing.graphs(evidence, [count // share for count in counts], groups)
        if not len(found):
            return None
        parts.append((found, sorted(c for group in groups for c in group), division.labels[graph]))
    return certify_batch(observation, anatomy, evidence, parts, listing)


def why_not(evidence: Evidence, listing: Listing, observation: Observation) -> str:
    """Why the evidence gives no graph."""
    for stage, count in evidence.passed.items():
        if count == 0:
            return f"No candidate of stage '{stage}' lies in its row space."
    graphs = observation.num_examples or 1
    if graphs > 1:
        return f"The neighbourhoods could not be shared out among {graphs} graphs."
    if evidence.shares is None or evidence.shares.residual > listing.slack:
        rest = 1.0 if evidence.shares is None else evidence.shares.residual
        return f"The candidates explain all but {rest:.1e} of the read-out's gradient, so some are missing."
    return f"The shares of the neighbourhoods fit no graph of up to {listing.most_nodes} nodes."
