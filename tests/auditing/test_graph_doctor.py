"""The doctor of graph networks: which layers show nodes, what counts them, and what it cannot examine."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

import invertigo
from invertigo import models
from invertigo.cli.app import app
from invertigo.models import from_geometric
from invertigo.types import InvalidValueError

SHAPE, CLASSES = (12, 20), 3


def build(name="gcn", **options):
    generator = torch.Generator().manual_seed(0)
    return models.build(name, input_shape=SHAPE, num_classes=CLASSES, generator=generator, **options)


def doctor(model, batch_size=1, loss=F.cross_entropy, **options):
    return invertigo.doctor(model, loss, batch_size, **{"input_shape": SHAPE} | options)


@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_layers_that_show_nodes_and_the_read_out_that_counts_them(name):
    found = doctor(build(name))
    assert found.leaks_exactly
    assert found.input_shape == SHAPE
    assert [f.layer for f in found.findings if f.code == "node-span"] == ["layers.0", "layers.1"]
    assert "fewer than 20 kinds" in found["node-span"].message
    assert ("neighbourhood means" in found["node-span"].message) == (name == "gcn")
    assert found["nodes-counted"].severity == "critical"
    assert "exactly" in found["labels"].message


def test_a_frozen_layer_shows_nothing_and_a_narrow_one_is_said_to_be():
    model = build(hidden=8)
    model.message_layers[0].weight.requires_grad_(False)
    found = doctor(model)
    assert [f.layer for f in found.findings if f.code == "node-span"] == ["layers.1"]
    assert "fewer than 8 kinds" in found["node-span"].message
    assert "out of reach" in found["node-span"].message


def test_other_heads():
    pooled, blind = build(), build()
    pooled.pool_first = True
    assert doctor(pooled)["pooled-embedding"].severity == "warning"
    assert "nodes-counted" not in doctor(pooled)
    blind.readout[-1].bias.requires_grad_(False)
    assert "nodes-uncounted" in doctor(blind)
    assert "labels" not in doctor(build(level="node"))
    assert "labels" not in doctor(build(), batch_size=4)


def test_a_loss_that_does_not_fit_is_said():
    assert "loss-not-probed" in doctor(build(), loss=F.binary_cross_entropy)


def test_dropout_and_unused_parameters_are_found_as_in_other_models():
    model = build()
    model.extra = nn.Linear(2, 2)
    assert "extra" in doctor(model)["no-gradient"].message


@pytest.mark.parametrize("shape", [(3, 32, 32), (12, 21), (0, 20)])
def test_shapes_that_are_no_graphs_are_refused(shape):
    with pytest.raises(InvalidValueError, match="input_shape"):
        doctor(build(), input_shape=shape)


def test_without_a_shape_the_columns_are_those_of_the_first_layer():
    assert doctor(build(), input_shape=None).input_shape[1] == SHAPE[1]


def test_models_of_pytorch_geometric_are_sent_to_their_dense_form():
    pyg = pytest.importorskip("torch_geometric.nn")
    first, head = pyg.GATConv(SHAPE[1], 16), nn.Linear(16, CLASSES)
    with pytest.raises(InvalidValueError, match=r"'0' is a GATConv.*from_geometric"):
        doctor(nn.Sequential(first, head))
    found = doctor(from_geometric([first], head, activation=nn.ReLU()))
    assert [f.layer for f in found.findings if f.code == "node-span"] == ["layers.0"]


def test_the_command_examines_graph_networks():
    run = CliRunner().invoke(
        app, ["doctor", "gcn", "--input-shape", "12,20", "--classes", "3", "--batch-size", "1", "--json"]
    )
    assert run.exit_code == 0
    assert "node-span" in {finding["code"] for finding in json.loads(run.output)["findings"]}
