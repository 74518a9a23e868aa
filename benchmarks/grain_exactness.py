"""Is what is called exact the true graph? Cages, macrocycles, polycyclic aromatics, peptides and salts, by features.

    python benchmarks/grain_exactness.py [--features columns,element,random,degree] [--seconds 2] [--every 1]

Each graph is rebuilt from one float32 gradient of an untrained network, its label unknown, through every network below
in turn, in a domain that has room for exactly this graph or for all but one node of two copies of it, in turn: the
rooms in which most can be claimed. `false exact`: called exact, and another graph than the true one. `false covers`:
called the only graph of its size, and the true one has as many nodes and is another. `false list`: the list is called
complete and the true graph is not on it. All three must be 0.

`columns`: the 140 of `domains.molecules`, which tell the degree. `element`: the element and the degree. `random`: six
random yes-or-no columns and the degree. `degree`: nothing but the degree. Pairs are two graphs in one gradient.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from dataclasses import dataclass, replace

import torch
from rdkit import Chem

import invertigo
from invertigo import data, models
from invertigo.attacks.exact import GraphRecovery
from invertigo.domains import Graphs
from invertigo.domains.labelled_graph import LabelledGraph, isomorphism
from invertigo.domains.molecules import parse
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, ThreatLevel

FAMILIES = {
    "cages": (
        "C12C3C4C1C5C2C3C45 C1C2CC3CC1CC(C2)C3 C12C3C4C5C1C6C7C2C8C3C9C4C1C5C6C2C7C8C9C12 C1CC2CCC1C2 C1CC2CCC1CC2 "
        "C12C3C1C4C2C34 C1C2C3C1C23 C1N2CN3CN1CN(C2)C3 C1CN2CCN1CC2 C12C3C4C1C4C23 C1C2C3CC4CC2CC(C1)C34 "
        "CC12CC3CC(C1)CC(C3)(C2)N C1CC2CC1C=C2"
    ),
    "macrocycles": (
        "C1CCCCCCCCCCC1 C1COCCOCCOCCO1 C1COCCOCCOCCOCCOCCO1 C1=CC2=CC3=CC=C(N3)C=C4C=CC(=N4)C=C5C=CC(=CC1=N2)N5 "
        "C1CNCCNCCCNCCNC1 C1CCCCCCC1 CC1CCCCCCCCCCC(=O)O1 C1CCCCCCCCC(=O)CCCCC1 C1CSCCSCCS1 C1CCCCCCCCCCCCCCCCCCC1"
    ),
    "polycyclic aromatics": (
        "c1ccc2ccccc2c1 c1ccc2cc3ccccc3cc2c1 c1ccc2c(c1)ccc1ccccc12 c1cc2ccc3cccc4ccc(c1)c2c34 c1cc2cccc3c4cccc5cccc"
        "(c(c1)c23)c45 c1cc2ccc3ccc4ccc5ccc6ccc1c7c2c3c4c5c67 c1ccc2c(c1)c1ccccc1c1ccccc21 c1ccc2c(c1)C=Cc1ccccc12 "
        "c1ccc2c(c1)-c1ccccc1-2 c1ccc2[nH]c3ccccc3c2c1 c1ccc(cc1)-c1ccccc1 c1cc2ccccc2c2ccccc12 c1ccc2ncccc2c1"
    ),
    "peptides": (
        "NCC(=O)NCC(=O)O CC(N)C(=O)NC(C)C(=O)O CC(N)C(=O)NC(C)C(=O)NC(C)C(=O)O NC(Cc1ccccc1)C(=O)NCC(=O)O "
        "O=C1CNC(=O)CN1 CC1NC(=O)C(C)NC1=O NCC(=O)NCC(=O)NCC(=O)NCC(=O)O NC(CO)C(=O)NC(CS)C(=O)O "
        "CC(C)C(N)C(=O)NC(CC(C)C)C(=O)O O=C1CNC(=O)CNC(=O)CN1 NC(CC(=O)O)C(=O)NC(Cc1ccccc1)C(=O)OC"
    ),
    "salts": (
        "CC(=O)[O-].[Na+] C[N+](C)(C)C.[Cl-] CC[N+](C)(C)C.CC[N+](C)(C)C [Na+].[Na+].[O-]S(=O)(=O)[O-] [Na+].[Cl-] "
        "OC(=O)CC(=O)O.NCC C1CCCCC1.C1CCCCC1 c1ccccc1.c1ccccc1 CC(=O)[O-].CC(=O)[O-].[Mg+2] CCN.Cl CO.CO.O"
    ),
}  # fmt: skip
NETWORKS = {
    "gcn, 2": ("gcn", {}),
    "gcn without concatenation, 2": ("gcn", {"concatenate": False, "bias": True}),
    "gcn, 3": ("gcn", {"layers": 3}),
    "gat, 2": ("gat", {}),
    "gat without residual, 2": ("gat", {"skip": False}),
    "gat without residual, 3": ("gat", {"skip": False, "layers": 3}),
}
ELEMENTS = (6, 7, 8, 16, 17, 11, 12)
RANDOM = 6


@dataclass(frozen=True)
class Outcome:
    """What was said of one gradient, whether it was wrong, and how long it took."""

    kind: str
    wrong: str
    found: bool
    seconds: float


def described(smiles: str, features: str) -> tuple[LabelledGraph, Graphs]:
    """The graph of a molecule with these features, and its domain without room for more."""
    if features == "columns":
        graph, drugs = parse(smiles), data.load("drugs").domain(standardise=True)
        return graph, replace(drugs, nodes=len(graph))
    atoms = Chem.MolFromSmiles(smiles)
    edges = torch.from_numpy(Chem.GetAdjacencyMatrix(atoms)).bool()
    degrees = edges.sum(1)[:, None]
    generator = torch.Generator().manual_seed(len(smiles))
    groups = {
        "element": (torch.tensor([[ELEMENTS.index(a.GetAtomicNum())] for a in atoms.GetAtoms()]), (len(ELEMENTS),)),
        "random": (torch.randint(0, 2, (len(edges), RANDOM), generator=generator), (1,) * RANDOM),
        "degree": (torch.zeros(len(edges), 0, dtype=torch.long), ()),
    }
    kinds, blocks = groups[features]
    graph = LabelledGraph(torch.cat([kinds, degrees], 1), edges)
    return graph, Graphs((*blocks, 8), len(graph), degree_block=len(blocks))


def rebuilt(graphs: list[LabelledGraph], domain: Graphs, network: str, seconds: float) -> tuple[GraphRecovery, float]:
    """What the attack says of one gradient of these graphs, and its CPU seconds."""
    name, options = NETWORKS[network]
    model = models.build(
        name, input_shape=(domain.nodes, domain.width), num_classes=2, hidden=200,
        generator=torch.Generator().manual_seed(0), **options,
    )  # fmt: skip
    batch = Batch({**domain.encode(graphs), "labels": torch.arange(len(graphs)) % 2})
    task = models.graph_task(model, domain, 2)
    observation = observe(task, batch, LocalTraining(mode="eval"), level=ThreatLevel.UPDATE)
    started = time.process_time()
    found = invertigo.reconstruct(observation, "grain", seconds=seconds).certificate
    assert isinstance(found, GraphRecovery)
    return found, time.process_time() - started


def judged(truths: list[LabelledGraph], domain: Graphs, found: GraphRecovery, seconds: float) -> Outcome:
    """Whether a word that was said is wrong: of a pair, of either."""
    wrong, hits = "", []
    for part in found.parts or (found,):
        listed = [LabelledGraph(domain.choices(g["features"]), g["adjacency"] > 0.5) for g in part.alternatives]
        same = [any(isomorphism(truth, graph) is not None for truth in truths) for graph in listed]
        rivals = any(len(truth) == part.nodes for truth in truths)
        hits.append(any(same))
        if part.kind == "exact" and not same[0]:
            wrong = "exact"
        elif part.kind == "up to covers" and rivals and not same[0] and len(truths) == 1:
            wrong = "covers"
        elif part.class_complete and not any(same):
            wrong = "list"
    return Outcome(found.kind, wrong, found.kind != "partial" and all(hits), seconds)


def run(features: str, chosen: argparse.Namespace) -> dict[str, list[Outcome]]:
    """Every molecule through the networks in turn, and pairs of neighbours in the list."""
    told: dict[str, list[Outcome]] = {}
    names, turn = list(NETWORKS), 0
    for family, listed in FAMILIES.items():
        made = [described(smiles, features) for smiles in listed.split()][:: chosen.every]
        sets = [([graph], domain) for graph, domain in made]
        sets += [([a, b], d) for (a, d), (b, _) in zip(made[::4], made[1::4])]
        for graphs, domain in sets:
            for network in (names[turn % len(names)], names[(turn + 3) % len(names)]):
                nodes = max(map(len, graphs))
                roomy = replace(domain, nodes=nodes if turn % 2 else 2 * nodes - 1)
                outcome = judged(graphs, roomy, *rebuilt(graphs, roomy, network, chosen.seconds))
                told.setdefault(family if len(graphs) == 1 else "pairs", []).append(outcome)
                if chosen.verbose or outcome.wrong:
                    print(features, family, network, [len(g) for g in graphs], roomy.nodes, outcome, flush=True)
            turn += 1
    return told


def row(features: str, family: str, outcomes: list[Outcome]) -> str:
    """One line of the table."""
    kinds, wrong = Counter(o.kind for o in outcomes), Counter(o.wrong for o in outcomes)
    spent = [o.seconds for o in outcomes]
    cells = [
        features, family, len(outcomes),
        *(kinds[k] for k in ("exact", "up to covers", "equivalent", "partial")),
        sum(o.found for o in outcomes), *(wrong[k] for k in ("exact", "covers", "list")),
        f"{statistics.median(spent):.2f}", f"{max(spent):.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Run all sets of features and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", default="columns,element,random,degree")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| features | graphs | n | exact | up to covers | equivalent | partial | truth listed | false exact |"
        " false covers | false list | median CPU s | max |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for features in chosen.features.split(","):
        for family, outcomes in run(features, chosen).items():
            print(row(features, family, outcomes), flush=True)


if __name__ == "__main__":
    main()
