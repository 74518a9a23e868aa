"""What became of each private graph: rebuilt exactly, recognisably, or not."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from invertigo.evaluation.outcomes import ENOUGH_DECOYS, Criteria, Outcome
from invertigo.types import Identification, Scores

FEATURES, EDGES = 0.9, 0.8
"""Shares of the features of nodes, and of the edges, from which a chemist would recognise a molecule. Our choice."""


def graph_outcomes(
    scores: Scores, identification: Identification | None, baselines: Mapping[str, Scores]
) -> list[Outcome]:
    """The outcome of each graph, in the order of the truth.

    Exact: isomorphic with all node features, where no guess without information is. Recognisable: GSM-0 of 0.9 and
    four fifths of the edges, both found and not made up; more alike by GSM-1 than every guess without information; and
    first in a line-up of 100 or more.
    """
    of = scores.per_example
    rivals = [baseline.per_example for name, baseline in baselines.items() if name not in Criteria().oracles]
    guessed = torch.stack([torch.zeros_like(of["exact"]), *(rival["exact"] for rival in rivals)]).amax(0)
    exact = of["exact"] > guessed
    alike = torch.stack([torch.zeros_like(of["gsm1"]), *(rival["gsm1"] for rival in rivals)]).amax(0)
    seen = (of["gsm0"] >= FEATURES) & (of["edges_recall"] >= EDGES) & (of["edges_precision"] >= EDGES)
    seen &= of["gsm1"] > alike
    if identification is None or identification.decoys < ENOUGH_DECOYS:
        seen &= False
    else:
        seen &= identification.identified
    return ["exact" if e else "recognisable" if s else "nothing" for e, s in zip(exact.tolist(), seen.tolist())]
