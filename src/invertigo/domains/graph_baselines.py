"""Graphs guessed without reading the update: what a score must beat before it means anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from invertigo.domains.labelled_graph import LabelledGraph, isomorphism, likeness

BASELINES: Mapping[str, str] = {
    "one_node": "a single node",
    "public_typical": "most typical public graph",
    "public_random": "random public graphs",
    "public_nearest": "nearest public graph (oracle)",
}
"""Name and label of each baseline. An oracle looks at the truth: no attack without information does as well."""


def guesses(
    truth: Sequence[LabelledGraph],
    public: Sequence[LabelledGraph],
    widths: Sequence[int],
    generator: torch.Generator,
) -> dict[str, list[LabelledGraph]]:
    """One guess per true graph and baseline. Public graphs that are in the truth are left out first.

    The most typical graph is the one that is most like all the others. Without public data only the single node is
    left; the private graphs never stand in for public ones.
    """
    groups = truth[0].kinds.shape[1]
    lone = LabelledGraph(torch.zeros(1, groups, dtype=torch.long), torch.zeros(1, 1, dtype=torch.bool))
    found = {"one_node": [lone] * len(truth)}
    public = without(public, truth)
    if not public:
        return found
    typical = public[int(likeness(public, public, widths).mean(1).argmax())]
    chosen = torch.randint(len(public), (len(truth),), generator=generator).tolist()
    nearest = likeness(truth, public, widths).argmax(1).tolist()
    return found | {
        "public_typical": [typical] * len(truth),
        "public_random": [public[i] for i in chosen],
        "public_nearest": [public[i] for i in nearest],
    }


def without(graphs: Sequence[LabelledGraph], truth: Sequence[LabelledGraph]) -> list[LabelledGraph]:
    """`graphs` less those that are one of the true ones: a copy of the truth tells nothing as a decoy."""
    return [graph for graph in graphs if all(isomorphism(graph, private) is None for private in truth)]
