"""Atoms as one-hot groups: which elements, charges, bonds, hydrogens and shapes a molecule's nodes can have."""

from __future__ import annotations

from typing import Any

import torch

from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.types import InvalidValueError
from invertigo.types.extras import require

ELEMENTS = (
    *(1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 33),
    *(34, 35, 38, 40, 42, 43, 46, 47, 48, 49, 50, 51, 53, 56, 60, 64, 66, 70, 78, 79, 80, 81, 82, 83),
)
"""Atomic numbers of the elements that occur in Tox21, BBBP and ClinTox."""
CHARGES = (-2, -1, 0, 1, 2, 3)
DEGREES = (0, 1, 2, 3, 4, 5, 6)
CHIRALITIES = (0, 1, 2)
HYDROGENS = (0, 1, 2, 3, 4, 6)
ISOTOPES = ((1, 2), (15, 32), (43, 99), (53, 123), (53, 131), (81, 201))
"""Labelled atoms (atomic number, mass number) that occur there; technetium occurs labelled only."""
MASSES = tuple(
    pair
    for element in ELEMENTS
    for pair in (*([(element, 0)] if element != 43 else []), *(p for p in ISOTOPES if p[0] == element))
)
"""Element and mass number, 0 for the natural mixture: an atom's mass without its digits, which releases disagree on."""
HYBRIDISATIONS = ("UNSPECIFIED", "S", "SP", "SP2", "SP3", "SP3D", "SP3D2")
GROUPS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("atomic number", ELEMENTS),
    ("formal charge", CHARGES),
    ("bonds to heavy atoms", DEGREES),
    ("chirality", CHIRALITIES),
    ("hydrogens", HYDROGENS),
    ("mass", MASSES),
    ("aromatic", (False, True)),
    ("hybridisation", HYBRIDISATIONS),
)
BLOCKS = tuple(len(values) for _, values in GROUPS)
"""Widths of the groups, 140 columns in all. Source: Drencheva et al. 2025 (GRAIN), chemical data sets."""
DEGREE_BLOCK = 2


def parse(smiles: str) -> LabelledGraph:
    """A molecule written as SMILES, without its implicit hydrogens; a salt becomes a graph of several components.

    Raises: InvalidValueError for text that is no SMILES, for an empty molecule, and for an atom that no group has.
    """
    chem = require("rdkit.Chem", "graph")
    block = require("rdkit.rdBase", "graph").BlockLogs()  # RDKit would print its complaints; the error carries ours
    molecule = chem.MolFromSmiles(smiles)
    del block
    if molecule is None or molecule.GetNumAtoms() == 0:
        raise InvalidValueError(
            f"RDKit cannot read {smiles!r} as a SMILES (syntax, valence or aromaticity), so there is no molecule to "
            "encode. Correct it, or leave this row out."
        )
    kinds = torch.tensor([[_member(g, value, smiles) for g, value in _values(atom)] for atom in molecule.GetAtoms()])
    edges = torch.from_numpy(chem.GetAdjacencyMatrix(molecule)).bool()
    return LabelledGraph(kinds, edges)


def _values(atom: Any) -> list[tuple[int, Any]]:
    values = (
        atom.GetAtomicNum(),
        atom.GetFormalCharge(),
        atom.GetDegree(),
        int(atom.GetChiralTag()),
        atom.GetTotalNumHs(),
        (atom.GetAtomicNum(), atom.GetIsotope()),
        atom.GetIsAromatic(),
        str(atom.GetHybridization()),
    )
    return list(enumerate(values))


def _member(group: int, value: Any, smiles: str) -> int:
    name, members = GROUPS[group]
    if value not in members:
        raise InvalidValueError(
            f"An atom of {smiles!r} has {name} {value}, which the {len(members)} values of that feature do not hold "
            f"({', '.join(map(str, members[:8]))}, ...). Leave this molecule out, or encode it yourself in a Batch."
        )
    return members.index(value)
