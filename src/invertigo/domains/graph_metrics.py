"""How much of one graph another one shows: similarity of features and neighbourhoods, nodes and edges found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from invertigo.domains.labelled_graph import LabelledGraph, isomorphism

LAYERS, HIDDEN, SEED = 5, 300, 0
Encode = Callable[[LabelledGraph], Float[Tensor, "node column"]]
"""The features of a graph's nodes as the model reads them."""


def compare(
    truth: LabelledGraph, guess: LabelledGraph | None, encode: Encode, widths: Sequence[int]
) -> dict[str, float]:
    """All scores of one rebuilt graph, each in [0, 1]; all 0 when nothing was rebuilt.

    `gsm0`: share of one-hot groups that agree between matched nodes, each group weighing as much as it is wide.
    `gsm1`, `gsm2`: coefficient of determination between the first (second) hidden layers of a fixed random graph
    convolution network on both graphs, cut to the matched nodes. All three are multiplied by the ratio of the node
    counts. `exact` is 1 for graphs that are isomorphic with all features. `nodes_*` count nodes whose whole feature
    vector is right, `edges_*` edges between matched nodes.

    Source: Drencheva et al. 2025 (GRAIN), graph similarity metrics. In the released code the score of the features
    is a recall weighted by class, which is the accuracy taken here; nodes are matched on features and all hidden
    layers without self-loops, as there. We match isomorphic graphs by their isomorphism, because nodes that look alike
    may otherwise be paired so that edges between them seem wrong.
    """
    if guess is None or not len(guess):
        return dict.fromkeys(METRICS, 0.0)
    mapping = isomorphism(truth, guess)
    exact = mapping is not None
    ours, theirs = (torch.arange(len(truth)), mapping) if mapping is not None else matched_nodes(truth, guess, encode)
    factor = min(len(truth), len(guess)) / max(len(truth), len(guess))
    right = (truth.kinds[ours] == guess.kinds[theirs]).double()
    weights = torch.tensor(widths, dtype=torch.float64)
    found_nodes = int(right.all(1).sum())
    among = truth.edges[ours][:, ours] & guess.edges[theirs][:, theirs]
    found_edges = int(among.sum()) // 2
    hidden = [hidden_layers(_cut(g, kept), encode, loops=True) for g, kept in ((truth, ours), (guess, theirs))]
    determined = [max(0.0, _determination(a, b) * factor) for a, b in zip(*hidden)]
    return {
        "gsm1": determined[0],
        "exact": float(exact),
        "gsm0": float((right.mean(0) * weights).sum() / weights.sum()) * factor,
        "gsm2": determined[1],
        "nodes_precision": found_nodes / len(guess),
        "nodes_recall": found_nodes / len(truth),
        "edges_precision": _share(found_edges, guess.num_edges, truth.num_edges),
        "edges_recall": _share(found_edges, truth.num_edges, guess.num_edges),
    }


METRICS = (
    *("gsm1", "exact", "gsm0", "gsm2"),
    *("nodes_precision", "nodes_recall", "edges_precision", "edges_recall"),
)


def matched_nodes(
    truth: LabelledGraph, guess: LabelledGraph, encode: Encode
) -> tuple[Int[Tensor, " matched"], Int[Tensor, " matched"]]:
    """Nodes paired at least squared distance of features and hidden layers; the larger graph's rest is left out."""
    ours, theirs = (
        torch.cat([encode(graph), *hidden_layers(graph, encode, loops=False)], dim=1) for graph in (truth, guess)
    )
    rows, columns = linear_sum_assignment(torch.cdist(ours, theirs).square().numpy())
    return torch.from_numpy(rows), torch.from_numpy(columns)


def hidden_layers(graph: LabelledGraph, encode: Encode, *, loops: bool) -> list[Float[Tensor, "node hidden"]]:
    """Outputs of the evaluation network's layers: `H ← relu(D^-1/2 (A [+ I]) D^-1/2 H W)`, no activation at last."""
    features = encode(graph)
    adjacency = graph.edges.double() + (torch.eye(len(graph), dtype=torch.float64) if loops else 0)
    scale = adjacency.sum(1).clamp_min(1).rsqrt()
    operator = scale[:, None] * adjacency * scale[None, :]
    layers = []
    for number, weight in enumerate(_weights(features.shape[1]), start=1):
        features = operator @ features @ weight
        features = features.relu() if number < LAYERS else features
        layers.append(features)
    return layers


@lru_cache(maxsize=4)
def _weights(width: int) -> tuple[Tensor, ...]:
    """Glorot-uniform weights that are the same in every evaluation."""
    generator = torch.Generator().manual_seed(SEED)
    shapes = [(width, HIDDEN), *[(HIDDEN, HIDDEN)] * (LAYERS - 1)]
    return tuple(
        (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * (6 / sum(shape)) ** 0.5
        for shape in shapes
    )


def _cut(graph: LabelledGraph, kept: Int[Tensor, " kept"]) -> LabelledGraph:
    return LabelledGraph(graph.kinds[kept], graph.edges[kept][:, kept])


def _determination(truth: Tensor, guess: Tensor) -> float:
    """R² over all entries; where the truth does not vary, 1 for an equal guess and 0 for another."""
    miss, spread = (truth - guess).square().sum().item(), (truth - truth.mean()).square().sum().item()
    if spread <= 1e-20:
        return float(miss <= 1e-20)
    return 1 - miss / spread


def _share(found: int, among: int, others: int) -> float:
    """`found / among`; where there is nothing to find, 1 if the other side has nothing either."""
    return found / among if among else float(others == 0)
