"""Sets of graphs: bundled ones, published formats, and files that are not what they say."""

import os
import pickle

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from invertigo import data
from invertigo.data import drugs
from invertigo.data.inert_pickle import read_inert
from invertigo.data.social import read_graph_text
from invertigo.data.subgraphs import grow, induced
from invertigo.types import CorruptFileError, InvalidValueError, MissingDataError

SHARED = os.environ.get("INVERTIGO_DATA")
needs_files = pytest.mark.skipif(not SHARED, reason="needs public sets in INVERTIGO_DATA")
needs_rdkit = pytest.mark.skipif(not __import__("importlib.util").util.find_spec("rdkit"), reason="needs RDKit")


@needs_rdkit
def test_every_drug_has_the_formula_that_is_written_beside_it():
    from rdkit import Chem
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    table = drugs.table()
    assert len(table) == len({row["name"] for row in table}) == 120
    assert len({Chem.CanonSmiles(row["smiles"]) for row in table}) == 120
    for row in table:
        assert CalcMolFormula(Chem.MolFromSmiles(row["smiles"])) == row["formula"], row["name"]


@needs_rdkit
def test_drugs_load_in_the_order_of_their_names():
    found = data.load("drugs", limit=12)
    assert found.bundled
    assert found.names[11] == "aspirin"
    assert len(found.graphs[11]) == 13
    assert found.domain(standardise=True).validate(found.batch(domain=found.domain(standardise=True))) == []


def test_the_karate_club_is_zacharys():
    club = data.load("karate", split="whole")
    known = nx.karate_club_graph()
    assert {tuple(edge) for edge in club.graphs[0].edges.triu(1).nonzero().tolist()} == {
        (min(edge), max(edge)) for edge in known.edges()
    }
    assert club.labels[0].tolist() == [int(known.nodes[n]["club"] != "Mr. Hi") for n in known]
    circles = data.load("karate")
    assert [len(graph) for graph in circles.graphs] == [1 + known.degree(n) for n in known]


def test_a_set_is_cut_by_index_and_by_size():
    circles = data.load("karate")
    assert len(circles.others([0, 33])) == 32
    assert {len(graph) for graph in circles.sized(3, 4).graphs} == {3, 4}
    with pytest.raises(InvalidValueError, match="2 to 18"):
        circles.sized(40, 50)
    with pytest.raises(InvalidValueError, match="numbered 0 to 33"):
        circles.part([34])
    with pytest.raises(InvalidValueError, match="side in pixels"):
        data.load("karate", size=32)


def test_a_batch_holds_what_the_model_reads():
    circles = data.load("karate")
    domain = circles.domain(standardise=True)
    batch = circles.batch([0, 11], domain)
    assert batch["features"].shape == (2, 18, 18)
    assert batch["present"].sum(1).tolist() == [17, 2]
    whole = circles.batch(domain=domain)
    rows = whole["features"][whole["present"]].double()
    varying = circles.one_hot().std(0) > 0
    torch.testing.assert_close(rows[:, varying].mean(0), torch.zeros(int(varying.sum())).double(), atol=1e-5, rtol=0)


@needs_rdkit
def test_a_table_of_ones_own_is_read_and_what_cannot_be_is_counted(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("smiles,label\nCCO,yes\nnonsense,no\nC(C,no\nCC,\n[Na+].[Cl-],no\n")
    found = data.load(str(path))
    assert [len(graph) for graph in found.graphs] == [3, 2]
    assert found.classes == ("no", "yes")
    assert found.skipped == {"SMILES that cannot be read": 2, "no label": 1}
    path.write_text("smile,label\nCCO,yes\n")
    with pytest.raises(CorruptFileError, match="Did you mean 'smile'"):
        data.load(str(path))


def test_a_pickle_gives_arrays_and_nothing_else(tmp_path):
    dense = np.eye(3, dtype=np.float32)[:, ::-1]
    for name, value in (("dense", dense), ("sparse", csr_matrix(dense))):
        (tmp_path / name).write_bytes(pickle.dumps(value, protocol=2))
    np.testing.assert_array_equal(read_inert(tmp_path / "dense"), dense)
    for evil in (os.system, print):
        (tmp_path / "evil").write_bytes(pickle.dumps(evil, protocol=2))
        with pytest.raises(CorruptFileError, match="was refused"):
            read_inert(tmp_path / "evil")


def test_graphs_in_text_are_read_and_damage_is_named(tmp_path):
    path = tmp_path / "g.txt"
    path.write_text("1\n3 1\n0 1 1\n0 2 0 2\n0 1 1\n")
    (edges,), labels = read_graph_text(path)
    assert edges.int().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert labels == [1]
    path.write_text("1\n3 1\n0 1 7\n")
    with pytest.raises(CorruptFileError, match="nodes label"):
        read_graph_text(path)


def test_subgraphs_grow_connected_within_three_hops():
    path = [[b for b in (a - 1, a + 1) if 0 <= b < 30] for a in range(30)]
    found = grow(path, 7, torch.Generator().manual_seed(0))
    assert len(found) == 7
    assert max(found) - min(found) == 6
    assert len(grow(path, 12, torch.Generator().manual_seed(0))) == 7  # three hops either way hold no more
    assert int(induced(path, found).sum()) == 12


def test_a_set_that_is_not_here_says_where_it_goes(tmp_path):
    with pytest.raises(MissingDataError, match="planetoid"):
        data.load("citeseer", root=tmp_path)


@needs_files
def test_citeseer_has_the_papers_bins_and_its_edges_come_from_the_file():
    found = data.load("citeseer", limit=60)
    assert found.shape[1] == 3803
    assert max(map(len, found.graphs)) <= 40
    for graph in found.graphs:
        assert torch.equal(graph.kinds[:, -1], graph.edges.sum(1))
        assert nx.is_connected(nx.from_numpy_array(graph.edges.numpy()))


@needs_files
def test_imdb_has_both_genres_in_turn():
    found = data.load("imdb_binary", limit=10)
    assert found.labels.tolist() == [0, 1] * 5
    assert min(map(len, found.graphs)) >= 12


@needs_files
@needs_rdkit
def test_clintox_is_read_with_its_salts_and_its_bad_rows():
    found = data.load("clintox")
    assert len(found) + found.skipped["SMILES that cannot be read"] == 1484
    assert found.classes == ("passed", "toxic")
