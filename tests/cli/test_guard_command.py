"""`invertigo guard`: exit codes, and files that are not safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from invertigo import models
from invertigo.cli.app import app
from invertigo.guards import registry


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sent")
    model = models.build("mlp", input_shape=(1, 8, 8), num_classes=10, generator=torch.Generator().manual_seed(0))
    state = model.state_dict()
    save_file(state, folder / "honest.safetensors")
    crafted = {name: tensor.clone() for name, tensor in state.items()}
    crafted["body.1.weight"][:] = crafted["body.1.weight"][:1].clone()
    save_file(crafted, folder / "crafted.safetensors")
    torch.save(state, folder / "pickled.safetensors")
    return folder


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["guard", *map(str, arguments)])


def test_an_honest_file_passes(folder):
    told = invoke(folder / "honest.safetensors")
    assert told.exit_code == 0, told.output
    assert "PASS" in told.output
    assert "loss_level" in told.output, "what was not looked at must be said"


def test_a_crafted_file_does_not(folder):
    told = invoke(folder / "crafted.safetensors", "--previous", folder / "honest.safetensors", "--json")
    assert told.exit_code == 1
    held = json.loads(told.stdout)
    assert held["decision"] == "block"
    assert held["malicious"] is True
    assert held["findings"][0]["layer"] == "body.1"


def test_a_pickle_is_refused_whatever_its_name(folder):
    told = invoke(folder / "pickled.safetensors")
    assert told.exit_code == 2
    assert "pickle" in told.stderr


def test_mistakes_are_told(folder):
    assert "Did you mean 'pruned'" in invoke(folder / "honest.safetensors", "--declare", "prunned").stderr
    assert "--model" in invoke(folder / "honest.safetensors", "--initial").stderr
    assert invoke(folder / "missing.safetensors").exit_code == 2


def test_a_model_of_another_architecture_is_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "clientmodels.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(3, 2)\n")
    monkeypatch.chdir(tmp_path)
    told = invoke(folder / "honest.safetensors", "--model", "clientmodels:net", "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["findings"][0]["rule"] == "architecture"


def test_guards_are_listed():
    told = CliRunner().invoke(app, ["list", "guards"])
    assert all(name in told.output for name in registry)
