"""Graphs rebuilt from one gradient: how many exactly, how many up to a listed class, and at what cost, by size.

    python benchmarks/grain.py [--data tox21|citeseer|imdb|drugs] [--model gcn|gat] [--layers 2|3] [--batch 1..4]
        [--graphs 100] [--seconds 60] [--hidden 300] [--noise 1e-9] [--a-bin 3] [--head mean|nodes|pooled]

Random graphs of all sizes where the set is found (`INVERTIGO_DATA`), else bundled drugs; standardised one-hot
features, float32 gradients of an untrained network, unknown size and label. `--a-bin` takes as many graphs from each
of the paper's bins. `exact`: the graph returned is the true one. `in class`: it is another one, and the true one is in
the list of graphs with the same gradient. `other`: it has the same gradient, and the true one is not listed. A batch
counts once, by its worst graph, in the bin of its largest. `--noise` adds normal noise of that standard deviation, in
units of the gradient's root mean square, of which the attack is told. `--head`: the mean of every node's answer, an
answer for every node (whose labels are drawn at random), or the answer to the mean embedding. CPU seconds are those
of one thread.
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
from invertigo.domains import Graphs
from invertigo.domains.sameness import same_graph
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, MissingDataError, Observation, ThreatLevel

ALL = (1, 10**6)
BINS = {
    "citeseer": ((1, 10), (11, 20), (21, 30), (31, 40), ALL),
    "imdb_binary": ((12, 20), (21, 40), (41, 136), ALL),
}
MOLECULES = ((1, 15), (16, 25), (26, 10**6), ALL)
NAMES = {"imdb": "imdb_binary"}


@dataclass(frozen=True)
class Outcome:
    """How one batch fared."""

    nodes: int
    verdict: str
    claim: str
    seconds: float


def drawn(name: str, count: int, seed: int, a_bin: int) -> tuple[data.GraphSet, Graphs]:
    """Random graphs, or so many of each bin, with the domain of the whole set; drugs where it is not there."""
    try:
        found = data.load(NAMES.get(name, name))
    except MissingDataError:
        found = data.load("drugs")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
    if a_bin:
        bins = [(low, high) for low, high in BINS.get(found.name, MOLECULES) if (low, high) != ALL]
        order = [i for low, high in bins for i in [o for o in order if low <= len(found.graphs[o]) <= high][:a_bin]]
    return found.part(order[:count]), found.domain(standardise=True)


def described(domain: Graphs, features: torch.Tensor, adjacency: torch.Tensor) -> tuple[list[int], list[list[int]]]:
    """Colours and neighbours of each node."""
    kinds = [hash(tuple(row)) for row in domain.choices(features).tolist()]
    return kinds, [(row > 0.5).nonzero()[:, 0].tolist() for row in adjacency]


def verdict(domain: Graphs, truth: Batch, recovery: GraphRecovery) -> str:
    """Which of the listed graphs is the true one; of a batch, the worst of all graphs."""
    if recovery.kind == "partial":
        return "partial"
    there = [truth["present"][i] for i in range(len(truth["present"]))]
    true = [described(domain, truth["features"][i][p], truth["adjacency"][i][p][:, p]) for i, p in enumerate(there)]
    worst = "exact"
    for part in recovery.parts or (recovery,):
        listed = [described(domain, g["features"], g["adjacency"]) for g in part.alternatives]
        hits = [next((i for i, t in enumerate(true) if same_graph(*graph, *t)), None) for graph in listed]
        hit = next((h for h in hits if h is not None), None)
        if hit is None:
            return "other"
        if hits[0] is None:
            worst = "in class"
        del true[hit]
    return worst


def attacked(
    graphs: data.GraphSet, numbers: list[int], domain: Graphs, model: torch.nn.Module, chosen: argparse.Namespace
) -> Outcome:
    """Observe the gradient of one batch and rebuild it."""
    batch = graphs.batch(numbers, domain)
    if chosen.head == "nodes":
        batch = with_node_labels(batch, graphs.num_classes, numbers[0])
    task = models.graph_task(model, domain, graphs.num_classes)
    observation = observe(task, batch, LocalTraining(mode="eval"), level=ThreatLevel.INFERENCE_MODE)
    observation = replace(observation, knowledge=replace(observation.knowledge, labels=None))
    told = {}
    if chosen.noise:
        observation, told["noise"] = noisy(observation, chosen.noise, numbers[0])
    started = time.process_time()
    found = invertigo.reconstruct(observation, "grain", seconds=chosen.seconds, **told)
    spent = time.process_time() - started
    outcome = verdict(domain, batch, found.certificate)
    if chosen.verbose:
        print(numbers, len(graphs.graphs[numbers[0]]), outcome, f"{spent:.2f}", found.notes[0], flush=True)
    return Outcome(max(len(graphs.graphs[i]) for i in numbers), outcome, found.certificate.kind, spent)


def with_node_labels(batch: Batch, classes: int, seed: int) -> Batch:
    """The batch with a label drawn for every node, -1 for padding."""
    shape = batch["present"].shape
    labels = torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))
    return Batch({**batch.fields, "labels": labels.where(batch["present"], -1)})


def noisy(observation: Observation, level: float, seed: int) -> tuple[Observation, float]:
    """The observation with noise of `level` times the root mean square of the gradient's entries, and that noise."""
    flat = torch.cat([tensor.flatten() for tensor in observation.update.tensors.values()])
    std = level * float(flat.square().mean().sqrt())
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: tensor + std * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        for name, tensor in observation.update.tensors.items()
    }
    return replace(observation, update=replace(observation.update, tensors=tensors)), std


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
    """Run all graphs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="tox21")
    parser.add_argument("--model", default="gcn", choices=("gcn", "gat"))
    parser.add_argument("--head", default="mean", choices=("mean", "nodes", "pooled"))
    parser.add_argument("--layers", type=int, default=2, choices=(2, 3))
    parser.add_argument("--batch", type=int, default=1, choices=(1, 2, 3, 4))
    for name, default in (("graphs", 100), ("hidden", 300), ("seed", 7), ("a-bin", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("seconds", 60.0), ("noise", 0.0)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--verbose", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    graphs, domain = drawn(chosen.data, chosen.graphs, chosen.seed, chosen.a_bin)
    model = models.build(
        chosen.model, input_shape=(domain.nodes, domain.width), num_classes=graphs.num_classes,
        generator=torch.Generator().manual_seed(0), hidden=chosen.hidden, layers=chosen.layers,
        level="node" if chosen.head == "nodes" else "graph",
    )  # fmt: skip
    model.pool_first = chosen.head == "pooled"
    if chosen.noise:
        model = model.double()
    starts = range(0, len(graphs) - chosen.batch + 1, chosen.batch)
    outcomes = [attacked(graphs, [*range(s, s + chosen.batch)], domain, model, chosen) for s in starts]
    told = f"{chosen.layers} layers of {chosen.hidden}, head {chosen.head}, batches of {chosen.batch}"
    print(f"{graphs.name}, {chosen.model}, {told}")
    print("| nodes | batches | exact | in class | other | partial | called exact | median s | max s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for low, high in BINS.get(graphs.name, MOLECULES):
        print(row(outcomes, low, high))


if __name__ == "__main__":
    main()
