"""Social graphs: who appeared in films with whom, and a karate club."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import torch

from invertigo.data.graph_set import GraphSet
from invertigo.data.graph_source import GraphSource, register
from invertigo.data.locate import find
from invertigo.data.source import Request
from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.types import CorruptFileError, Paper
from invertigo.types.untrusted import read_text

IMDB = Paper(
    key="yanardag2015deep",
    title="Deep Graph Kernels",
    authors="Yanardag, Pinar and Vishwanathan, S. V. N.",
    year=2015,
    venue="ACM SIGKDD International Conference on Knowledge Discovery and Data Mining",
)
KARATE = Paper(
    key="zachary1977information",
    title="An Information Flow Model for Conflict and Fission in Small Groups",
    authors="Zachary, Wayne W.",
    year=1977,
    venue="Journal of Anthropological Research",
)
LARGEST_GRAPH = 5000
"""Nodes."""
DEGREES = 136
"""Degrees 0 to 135: the largest ego network of IMDB-BINARY has 136 people."""
FRIENDS = (
    *("2 3 4 5 6 7 8 9 11 12 13 14 18 20 22 32", "3 4 8 14 18 20 22 31", "4 8 9 10 14 28 29 33", "8 13 14", "7 11"),
    *("7 11 17", "17", "", "31 33 34", "34", "", "", "", "34", "33 34", "33 34", "", "", "33 34", "34", "33 34", ""),
    *("33 34", "26 28 30 33 34", "26 28 32", "32", "30 34", "34", "32 34", "33 34", "33 34", "33 34", "34", ""),
)
"""For each member, numbered from 1, the friends with a larger number; 78 friendships."""
OFFICER = frozenset({10, 15, 16, 19, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34})
"""Members that joined the officer's club after the split; the others went with the instructor."""


def read_graph_text(path: Path) -> tuple[list[torch.Tensor], list[int]]:
    """Adjacency (node, node) and label of each graph of a text file as GIN and DGCNN publish data sets.

    A line with the number of graphs; for each graph a line `nodes label`, then a line `tag degree neighbours...` a
    node. Raises: CorruptFileError.
    """
    try:
        words = read_text(path).split()
        numbers = iter(int(word) for word in words)
        graphs, labels = [], []
        for _ in range(next(numbers)):
            nodes = next(numbers)
            if not 0 <= nodes <= min(LARGEST_GRAPH, len(words) // 2):
                raise ValueError(f"a graph of {nodes} nodes in {len(words)} numbers")
            labels.append(next(numbers))
            edges = torch.zeros(nodes, nodes, dtype=torch.bool)
            for node in range(nodes):
                next(numbers)
                for _ in range(next(numbers)):
                    near = next(numbers)
                    if not 0 <= near < nodes:
                        raise ValueError(f"a neighbour numbered {near} among {nodes} nodes")
                    edges[node, near] = edges[near, node] = near != node
            graphs.append(edges)
        if next(numbers, None) is not None:
            raise ValueError("there is more in it than it announces")
    except (ValueError, StopIteration) as error:
        raise CorruptFileError(
            f"{path} is no list of graphs in text ({type(error).__name__}: {error}); each graph is a line "
            "'nodes label' and a line 'tag degree neighbours...' for each node."
        ) from error
    return graphs, labels


def _with_degrees(edges: torch.Tensor, width: int) -> LabelledGraph:
    return LabelledGraph(edges.sum(1).clamp_max(width - 1)[:, None], edges)


def _read_imdb(request: Request) -> GraphSet:
    path = find("imdb_binary", ("imdb_binary/IMDBBINARY.txt", "IMDBBINARY.txt"), request.root)
    edges, labels = read_graph_text(path)
    # The file lists one genre after the other; dealt in turn, so that a limit meets both.
    piles = [[i for i, label in enumerate(labels) if label == genre] for genre in (0, 1)]
    order = [i for turn in zip_longest(*piles) for i in turn if i is not None]
    graphs = tuple(_with_degrees(edges[i], DEGREES) for i in order)
    classes = ("action", "romance")
    return GraphSet("imdb_binary", graphs, torch.tensor([labels[i] for i in order]), classes, (DEGREES,), 0, paper=IMDB)


def _read_karate(request: Request) -> GraphSet:
    members = len(FRIENDS)
    edges = torch.zeros(members, members, dtype=torch.bool)
    for member, listed in enumerate(FRIENDS):
        for friend in listed.split():
            edges[member, int(friend) - 1] = edges[int(friend) - 1, member] = True
    side = torch.tensor([int(member + 1 in OFFICER) for member in range(members)])
    classes = ("instructor", "officer")
    if request.split == "whole":
        whole = (_with_degrees(edges, 18),)
        return GraphSet("karate", whole, side[None], classes, (18,), 0, bundled=True, paper=KARATE)
    circles = [(edges[member] | (torch.arange(members) == member)).nonzero().flatten() for member in range(members)]
    graphs = tuple(_with_degrees(edges[circle][:, circle], 18) for circle in circles)
    names = tuple(f"member {member + 1}" for member in range(members))
    return GraphSet("karate", graphs, side, classes, (18,), 0, names, bundled=True, paper=KARATE)


register(
    GraphSource(
        name="imdb_binary",
        summary="1,000 ego networks of actors, 12 to 136 people; a node tells its degree only",
        splits=("train",),
        licence="No licence stated; free for research with citation",
        read=_read_imdb,
        paper=IMDB,
    )
)
register(
    GraphSource(
        name="karate",
        summary="34 circles of friends in a karate club (split 'whole': the club, one label a member)",
        splits=("train", "whole"),
        licence="Facts published in 1977",
        read=_read_karate,
        bundled=True,
        paper=KARATE,
    )
)
