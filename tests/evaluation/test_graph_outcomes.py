"""What counts as a rebuilt graph."""

import torch

from invertigo.evaluation.graph_outcomes import graph_outcomes
from invertigo.types import Identification, Scores

NAMES = ("gsm1", "exact", "gsm0", "edges_recall", "edges_precision")


def scores(*rows):
    columns = torch.tensor(rows, dtype=torch.float64).T
    return Scores(dict(zip(NAMES, columns)), torch.arange(len(rows)))


FIRST = Identification(torch.tensor([1]), 100)


def outcome(row, identification=FIRST, **baselines):
    return graph_outcomes(scores(row), identification, {name: scores(r) for name, r in baselines.items()})[0]


def test_an_isomorphic_graph_is_exact_unless_a_guess_is_too():
    assert outcome([1, 1, 1, 1, 1]) == "exact"
    assert outcome([1, 1, 1, 1, 1], public_nearest=[1, 1, 1, 1, 1]) == "exact"  # it looked at the truth
    assert outcome([1, 1, 1, 1, 1], public_random=[1, 1, 1, 1, 1]) == "nothing"


def test_nearly_all_of_a_graph_is_recognisable_when_it_is_picked_out():
    near = [0.9, 0, 0.95, 0.9, 0.85]
    assert outcome(near) == "recognisable"
    assert outcome(near, Identification(torch.tensor([2]), 100)) == "nothing"
    assert outcome(near, Identification(torch.tensor([1]), 50)) == "nothing"
    assert outcome(near, None) == "nothing"
    assert outcome(near, public_typical=[0.95, 0, 0, 0, 0]) == "nothing"
    assert outcome([0.9, 0, 0.95, 0.9, 0.5]) == "nothing"
    assert outcome([0.9, 0, 0.5, 0.9, 0.9]) == "nothing"
