"""Citeseer: neighbourhoods of papers that cite each other, in the format of Planetoid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invertigo.data.graph_set import GraphSet
from invertigo.data.graph_source import GraphSource, register
from invertigo.data.inert_pickle import read_inert
from invertigo.data.locate import find
from invertigo.data.source import Request
from invertigo.data.subgraphs import grow, induced
from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.types import CorruptFileError, Paper
from invertigo.types.untrusted import read_text

CITESEER = Paper(
    key="sen2008collective",
    title="Collective Classification in Network Data",
    authors="Sen, Prithviraj and Namata, Galileo and Bilgic, Mustafa and Getoor, Lise and Galligher, Brian and "
    "Eliassi-Rad, Tina",
    year=2008,
    venue="AI Magazine",
)
CLASSES = tuple(f"topic {number}" for number in range(1, 7))
"""The six topics; the files do not say which is which."""
WORDS, DEGREES = 3703, 100
BINS = ((1, 10, 20), (10, 20, 40), (20, 30, 30), (30, 40, 10))
"""Least and most nodes, and how many of every hundred graphs. Source: Drencheva et al. 2025 (GRAIN), Table 3."""
GRAPHS, SEED = 400, 0
FURTHEST = 10
"""A number of a test paper is at most so many times the number of papers."""


def read_planetoid(folder: Path, name: str = "citeseer") -> tuple[Tensor, Tensor, list[list[int]]]:
    """Word indicators (paper, word), classes (paper,) with -1 where none is known, and who cites whom, either way.

    Papers that the test part leaves out have no words and no class. Raises: CorruptFileError.
    """
    parts = ("allx", "ally", "tx", "ty", "graph")
    allx, ally, tx, ty, graph = (read_inert(folder / f"ind.{name}.{part}") for part in parts)
    try:
        order = [int(line) for line in read_text(folder / f"ind.{name}.test.index").split()]
        if not 0 <= min(order) <= max(order) < FURTHEST * (len(allx) + len(tx)):
            raise ValueError(f"a test paper numbered {min(order)} or {max(order)}")
        words = np.zeros((max(order) + 1, allx.shape[1]), np.float32)
        kinds = np.zeros((max(order) + 1, ally.shape[1]), np.int64)
        words[: len(allx)], kinds[: len(ally)] = allx, ally
        words[order], kinds[order] = tx, ty
        neighbours = [sorted({int(b) for b in graph.get(a, [])} - {a}) for a in range(len(words))]
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise CorruptFileError(f"{folder} does not hold Planetoid's files of '{name}': {error}.") from error
    classes = np.where(kinds.any(1), kinds.argmax(1), -1)
    return torch.from_numpy(words > 0), torch.from_numpy(classes), neighbours


def _read(request: Request) -> GraphSet:
    file = find("citeseer", ("planetoid/ind.citeseer.graph", "ind.citeseer.graph"), request.root)
    words, classes, neighbours = read_planetoid(file.parent)
    neighbours = [[b for b in near if classes[b] >= 0] if classes[a] >= 0 else [] for a, near in enumerate(neighbours)]
    generator = torch.Generator().manual_seed(SEED)
    sizes = [
        int(torch.randint(least, most + 1, (), generator=generator))
        for least, most, share in BINS
        for _ in range(share * GRAPHS // 100)
    ]
    graphs, labels = [], []
    for position in torch.randperm(len(sizes), generator=generator).tolist():
        nodes = grow(neighbours, sizes[position], generator)
        nodes = [node for node in nodes if classes[node] >= 0]
        if not nodes:
            continue
        edges = induced(neighbours, nodes)
        degrees = edges.sum(1).clamp_max(DEGREES - 1)
        graphs.append(LabelledGraph(torch.cat([words[nodes].long(), degrees[:, None]], dim=1), edges))
        labels.append(int(torch.bincount(classes[nodes]).argmax()))
    blocks = (1,) * WORDS + (DEGREES,)
    return GraphSet(
        *("citeseer", tuple(graphs), torch.tensor(labels), CLASSES, blocks, len(blocks) - 1), paper=CITESEER
    )


register(
    GraphSource(
        name="citeseer",
        summary="400 neighbourhoods of 1 to 40 papers in a citation graph, with the words of each paper",
        splits=("train",),
        licence="No licence stated; free for research with citation",
        read=_read,
        paper=CITESEER,
    )
)
