"""Molecules: atoms as one-hot groups, bond orders from hydrogens, structural formulas."""

import pytest
import torch

from invertigo.domains import molecules
from invertigo.domains.graph_pictures import bond_orders, draw
from invertigo.domains.labelled_graph import LabelledGraph
from invertigo.types import InvalidValueError

chem = pytest.importorskip("rdkit.Chem", reason="needs the extra 'graph' (RDKit)")


def test_an_atom_has_the_hundred_and_forty_columns_of_the_paper():
    assert molecules.BLOCKS == (52, 6, 7, 3, 6, 57, 2, 7)
    assert sum(molecules.BLOCKS) == 140


def test_acetic_acid_is_read_atom_by_atom():
    graph = molecules.parse("CC(=O)O")
    values = [[members[pick] for (_, members), pick in zip(molecules.GROUPS, row)] for row in graph.kinds.tolist()]
    assert values == [
        [6, 0, 1, 0, 3, (6, 0), False, "SP3"],
        [6, 0, 3, 0, 0, (6, 0), False, "SP2"],
        [8, 0, 1, 0, 0, (8, 0), False, "SP2"],
        [8, 0, 1, 0, 1, (8, 0), False, "SP2"],
    ]
    assert graph.edges.nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [1, 3], [2, 1], [3, 1]]


def test_a_salt_is_one_graph_of_two_components():
    graph = molecules.parse("[Na+].[O-]C(=O)c1ccccc1")
    assert graph.neighbours[0] == []
    assert graph.num_edges == 9


@pytest.mark.parametrize("text", ["C1CC", "C(C)(C)(C)(C)C", "hello", "", "c1ccc1c"])
def test_what_is_no_molecule_is_refused_by_its_text(text):
    with pytest.raises(InvalidValueError, match="cannot read"):
        molecules.parse(text)


def test_an_atom_that_no_column_stands_for_is_refused():
    with pytest.raises(InvalidValueError, match="atomic number 92"):
        molecules.parse("[U]")


@pytest.mark.parametrize(
    "text",
    ["CC(=O)Oc1ccccc1C(=O)O", "CC#N", "NS(=O)(=O)c1ccc(N)cc1", "O=[N+]([O-])c1ccccc1", "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
     "[N-]=[N+]=NCC", "CP(=O)(O)O", "OCl(=O)(=O)=O", "[Na+].CC([O-])=O"],
)  # fmt: skip
def test_bond_orders_fill_every_valence(text):
    made = chem.MolFromSmiles(text)
    chem.Kekulize(made, clearAromaticFlags=True)
    true = sum(bond.GetBondTypeAsDouble() for bond in made.GetBonds())
    assert sum(bond_orders(molecules.parse(text), chem).values()) == true


def test_equal_molecules_look_equal_and_nonsense_is_drawn_too():
    one, other = molecules.parse("CCOC(=O)c1ccccc1"), molecules.parse("c1ccccc1C(=O)OCC")
    assert draw(one, molecules.BLOCKS) == draw(other, molecules.BLOCKS)
    generator = torch.Generator().manual_seed(0)
    kinds = torch.stack([torch.randint(width, (7,), generator=generator) for width in molecules.BLOCKS], 1)
    wild = LabelledGraph(kinds, ~torch.eye(7, dtype=torch.bool))
    assert draw(wild, molecules.BLOCKS).startswith(b"\x89PNG")
