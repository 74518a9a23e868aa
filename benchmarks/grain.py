"""Graphs rebuilt from one gradient: how many exactly, how many up to a listed class, and at what cost, by size.

    python benchmarks/grain.py [--model gcn] [--data tox21] [--molecules 100] [--seconds 60] [--layers 2] [--hidden 300]

Random molecules of all sizes from MoleculeNet where that set is found (`INVERTIGO_DATA`), else the bundled drugs;
standardised one-hot atoms, float32 gradients of an untrained network, unknown size and label. `exact`: the graph
returned is the true one. `in class`: it is another one, and the true one is in the list of graphs with the same
gradient. `other`: it has the same gradient, and the true one is not listed. CPU seconds are those of one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from dataclasses import dataclass, replace

import torch

import invertigo
from invertigo import data, models
from invertigo.attacks.exact import GraphRecovery
from invertigo.attacks.exact.grain.sameness import same_graph
from invertigo.domains import Graphs
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, MissingDataError, ThreatLevel

BINS = ((1, 15), (16, 25), (26, 10**6), (1, 10**6))


@dataclass(frozen=True)
class Outcome:
    """How one molecule fared."""

    nodes: int
    verdict: str
    claim: str
    seconds: float


def drawn(name: str, count: int, seed: int) -> data.GraphSet:
    """Random molecules; of the bundled drugs where the set is not at hand."""
    try:
        found = data.load(name)
    except MissingDataError:
        found = data.load("drugs")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return found.part(order[:count])


def described(domain: Graphs, features: torch.Tensor, adjacency: torch.Tensor) -> tuple[list[int], list[list[int]]]:
    """Colours and neighbours of each node."""
    kinds = [hash(tuple(row)) for row in domain.choices(features).tolist()]
    return kinds, [(row > 0.5).nonzero()[:, 0].tolist() for row in adjacency]


def verdict(domain: Graphs, truth: Batch, recovery: GraphRecovery) -> str:
    """Which of the listed graphs is the true one."""
    if recovery.kind == "partial":
        return "partial"
    there = truth["present"][0]
    true = described(domain, truth["features"][0][there], truth["adjacency"][0][there][:, there])
    hits = [same_graph(*described(domain, g["features"], g["adjacency"]), *true) for g in recovery.alternatives]
    return "exact" if hits[0] else "in class" if any(hits) else "other"


def attacked(graphs: data.GraphSet, number: int, domain: Graphs, model: torch.nn.Module, seconds: float) -> Outcome:
    """Observe one molecule's gradient and rebuild it."""
    batch = graphs.batch([number], domain)
    task = models.graph_task(model, domain, graphs.num_classes)
    observation = observe(task, batch, LocalTraining(mode="eval"), level=ThreatLevel.INFERENCE_MODE)
    observation = replace(observation, knowledge=replace(observation.knowledge, labels=None))
    started = time.process_time()
    found = invertigo.reconstruct(observation, "grain", seconds=seconds)
    spent = time.process_time() - started
    return Outcome(len(graphs.graphs[number]), verdict(domain, batch, found.certificate), found.certificate.kind, spent)


def row(outcomes: list[Outcome], low: int, high: int) -> str:
    """One line of the table."""
    chosen = [outcome for outcome in outcomes if low <= outcome.nodes <= high]
    if not chosen:
        return f"| {low}-{high} | 0 |"
    counts = Counter(outcome.verdict for outcome in chosen)
    proven = sum(outcome.claim == "exact" for outcome in chosen)
    spent = [outcome.seconds for outcome in chosen]
    cells = [
        f"{low}-{max(o.nodes for o in chosen)}", len(chosen),
        *(counts[k] for k in ("exact", "in class", "other", "partial")),
        proven, f"{statistics.median(spent):.2f}", f"{max(spent):.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Run all molecules and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("model", "gcn"), ("data", "tox21")):
        parser.add_argument(f"--{name}", default=default)
    for name, default in (("molecules", 100), ("layers", 2), ("hidden", 300), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    graphs = drawn(chosen.data, chosen.molecules, chosen.seed)
    domain = graphs.domain(standardise=True)
    model = models.build(
        chosen.model, input_shape=(domain.nodes, domain.width), num_classes=graphs.num_classes,
        generator=torch.Generator().manual_seed(0), hidden=chosen.hidden, layers=chosen.layers,
    )  # fmt: skip
    outcomes = [attacked(graphs, number, domain, model, chosen.seconds) for number in range(len(graphs))]
    print(f"{graphs.name}, {chosen.model}, {chosen.layers} layers of {chosen.hidden}")
    print("| atoms | graphs | exact | in class | other | partial | called exact | median s | max s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for low, high in BINS:
        print(row(outcomes, low, high))


if __name__ == "__main__":
    main()
