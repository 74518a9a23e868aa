"""Molecules from tables of SMILES, such as MoleculeNet publishes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from invertigo.data.graph_set import GraphSet
from invertigo.data.graph_source import GraphSource, register
from invertigo.data.locate import find
from invertigo.data.source import Request
from invertigo.domains.molecules import BLOCKS, DEGREE_BLOCK, parse
from invertigo.types import CorruptFileError, InvalidValueError, Paper, did_you_mean
from invertigo.types.untrusted import read_text

MOLECULENET = Paper(
    key="wu2018moleculenet",
    title="MoleculeNet: A Benchmark for Molecular Machine Learning",
    authors="Wu, Zhenqin and Ramsundar, Bharath and Feinberg, Evan N. and Gomes, Joseph and Geniesse, Caleb and "
    "Pappu, Aneesh S. and Leswing, Karl and Pande, Vijay",
    year=2018,
    venue="Chemical Science",
    arxiv="1703.00564",
)
UNREADABLE = "SMILES that cannot be read"
UNLABELLED = "no label"


def load_smiles(
    path: str | Path, *, smiles: str = "smiles", label: str | None = None, limit: int | None = None
) -> GraphSet:
    """Molecules of a CSV file with a column of SMILES and a column of class labels.

    Rows without a label, and rows whose SMILES cannot be read, are left out and counted in `skipped`.

    Args:
        smiles: the column of SMILES.
        label: the column of labels; None takes the only other column, or one called label, y or class.
        limit: only the first so many molecules.

    Raises: CorruptFileError when the file is no such table; InvalidValueError when no molecule can be read.
    """
    path = Path(path)
    rows = _rows(path)
    columns = list(rows[0]) if rows else []
    if smiles not in columns:
        raise CorruptFileError(
            f"{path} has no column '{smiles}'; its columns are {', '.join(columns) or 'none'}."
            f"{did_you_mean(smiles, columns)} Name the column of SMILES with smiles=..."
        )
    label = label or _label_column(path, [c for c in columns if c and c != smiles])
    if label not in columns:
        raise CorruptFileError(f"{path} has no column '{label}'.{did_you_mean(label, columns)}")
    return _gather(path.stem, [(row[smiles], row[label]) for row in rows], limit)


def _gather(name: str, rows: list[tuple[str, str]], limit: int | None) -> GraphSet:
    skipped: Counter[str] = Counter()
    graphs, labels, names = [], [], []
    for text, value in rows:
        if limit is not None and len(graphs) >= limit:
            break
        if not (value or "").strip():
            skipped[UNLABELLED] += 1
            continue
        try:
            graphs.append(parse(text.strip()))
        except InvalidValueError:
            skipped[UNREADABLE] += 1
            continue
        labels.append(value.strip())
        names.append(text.strip())
    if not graphs:
        raise InvalidValueError(f"None of the {len(rows)} rows of '{name}' holds a molecule: {dict(skipped)}.")
    classes = sorted({value.strip() for _, value in rows if (value or "").strip()}, key=_as_number)
    index = {value: i for i, value in enumerate(classes)}
    return GraphSet(
        name,
        tuple(graphs),
        torch.tensor([index[value] for value in labels]),
        tuple(classes),
        BLOCKS,
        DEGREE_BLOCK,
        tuple(names),
        skipped,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(read_text(path), newline=""), restkey="", restval="", strict=True))
    except csv.Error as error:
        raise CorruptFileError(f"{path} cannot be read as a CSV table ({error}).") from error


def _label_column(path: Path, others: list[str]) -> str:
    known = [column for column in others if column.lower() in ("label", "y", "class", "target")]
    if len(others) == 1 or len(known) == 1:
        return (known or others)[0]
    raise CorruptFileError(
        f"{path} has several columns beside the SMILES ({', '.join(others[:6])}); say which one holds the classes with "
        "label=..., or call it 'label'."
    )


def _as_number(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _read(request: Request, file: str, label: str, classes: tuple[str, str], known: str) -> GraphSet:
    path = find(known, (f"moleculenet/{file}", file), request.root)
    found = load_smiles(path, label=label, limit=request.limit)
    if len(found.classes) != 2:
        raise CorruptFileError(f"{path} has the labels {found.classes} in '{label}', not two classes.")
    return replace(found, name=known, classes=classes, licence="MIT (MoleculeNet)", paper=MOLECULENET)


_SETS = (
    (
        *("tox21", "tox21.csv", "SR-p53", ("inactive", "active")),
        "6,800 molecules and whether they set off the p53 stress response",
    ),
    (
        *("clintox", "clintox.csv", "CT_TOX", ("passed", "toxic")),
        "1,480 drugs and whether their trials failed for toxicity",
    ),
    (
        *("bbbp", "BBBP.csv", "p_np", ("held back", "passes")),
        "2,040 molecules and whether they pass the blood-brain barrier",
    ),
)
for _name, _file, _label, _classes, _summary in _SETS:
    register(
        GraphSource(
            name=_name,
            summary=_summary,
            splits=("train",),
            licence="MIT (MoleculeNet)",
            read=partial(_read, file=_file, label=_label, classes=_classes, known=_name),
            paper=MOLECULENET,
        )
    )
