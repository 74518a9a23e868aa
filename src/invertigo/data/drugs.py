"""Well-known drugs, bundled: names, formulas and structures are facts."""

from __future__ import annotations

import csv
from importlib.resources import files

import torch

from invertigo.data.graph_set import GraphSet
from invertigo.data.graph_source import GraphSource, register
from invertigo.data.source import Request
from invertigo.domains.molecules import BLOCKS, DEGREE_BLOCK, parse

CLASSES = ("other use", "nervous system")


def table() -> list[dict[str, str]]:
    """One row a drug: `name`, molecular `formula`, `nervous_system` (1 in ATC group N) and `smiles`."""
    text = (files("invertigo.data") / "drugs.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _read(request: Request) -> GraphSet:
    rows = table()
    return GraphSet(
        "drugs",
        tuple(parse(row["smiles"]) for row in rows),
        torch.tensor([int(row["nervous_system"]) for row in rows]),
        CLASSES,
        BLOCKS,
        DEGREE_BLOCK,
        tuple(row["name"] for row in rows),
        bundled=True,
    )


DRUGS = register(
    GraphSource(
        name="drugs",
        summary="120 well-known drugs as molecules, and whether they act on the nervous system",
        splits=("train",),
        licence="Facts",
        read=_read,
        bundled=True,
    )
)
