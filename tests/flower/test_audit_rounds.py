"""`invertigo audit rounds/ --round 3 --node 2`: a recorded run, audited from the command line."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import save_file

from invertigo import Batch, Images, data, models
from invertigo.cli.app import app as cli
from invertigo.flower import Audited, InProcessGrid, Recipe
from invertigo.types import LocalTraining

RATE = 0.1
TASK = """
title: what the clients train
data: {name: digits, count: 4}
model: {name: mlp, options: {hidden: [16]}}
"""


def private(round: int, node: int) -> Batch:
    return data.load("digits").batch(slice(10 * round + node, 10 * round + node + 2))


def build() -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    return models.build("mlp", input_shape=(1, 8, 8), num_classes=10, hidden=[16], generator=generator)


def client() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message, context):
        model = build()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        batch = private(int(message.content["config"]["server-round"]), message.metadata.dst_node_id)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        torch.nn.functional.cross_entropy(model(batch["images"]), batch["labels"]).backward()
        optimizer.step()
        content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": 2})}
        return Message(RecordDict(content), reply_to=message)

    return app


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Three rounds with the recipe; without the truth."""
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe(LocalTraining(sends="difference", learning_rate=RATE))
    strategy = Audited(FedAvg(fraction_evaluate=0.0), folder / "rounds", recipe=recipe)
    strategy.start(InProcessGrid(client(), 2), ArrayRecord(build().state_dict()), num_rounds=3)
    (folder / "task.yaml").write_text(TASK)
    save_file({k: t.contiguous() for k, t in private(3, 2).fields.items()}, str(folder / "truth.safetensors"))
    return folder


def run(*words) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return result.exit_code, result.output


def test_with_the_truth_the_round_is_repeated_and_its_examples_are_found(rounds, tmp_path):
    code, output = run(
        "audit", rounds / "rounds", "--round", 3, "--node", 2, "--task", rounds / "task.yaml", "--truth",
        rounds / "truth.safetensors", "--budget", "6s", "--out", tmp_path, "-q",
    )  # fmt: skip
    assert code == 0, output
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["title"] == "round 3, node 2"
    assert record["verdict"]["status"] == "leaks"
    assert {c["name"]: c["status"] for c in record["controls"]}["replay"] == "passed"


def test_without_the_truth_it_says_that_it_does_not_know(rounds, tmp_path):
    code, output = run(
        "audit", rounds / "rounds", "--round", 3, "--node", 2, "--task", rounds / "task.yaml", "--budget", "4s",
        "--out", tmp_path, "--said", "encryption", "-q",
    )  # fmt: skip
    assert code == 0, output
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["verdict"]["status"] == "inconclusive"
    assert "plaintext_despite_encryption" in {flag["code"] for flag in record["flags"]}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "--task"),
        (("--task", "{}/task.yaml", "--truth", "{}/truth.safetensors"), "6 updates"),
        (("--round", 9, "--task", "{}/task.yaml"), "none of round=9"),
        (("--task", "{}/task.yaml", "--said", "encrypton"), "encryption"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(rounds, tmp_path, words, reason):
    filled = [str(word).replace("{}", str(rounds)) for word in words]
    code, output = run("audit", rounds / "rounds", *filled, "--budget", "1s", "--out", tmp_path, "-q")
    assert code != 0
    assert reason in output
    assert "Traceback" not in output


def test_options_of_rounds_are_refused_for_a_scenario():
    code, output = run("audit", "demo", "--round", 3)
    assert code == 2
    assert "folder of recorded rounds" in output


def test_a_simulation_keeps_the_truth_beside_the_rounds(tmp_path):
    from test_recording import controls

    from invertigo.flower import audit_exchanges
    from invertigo.types import Task

    recipe = LocalTraining(sends="difference", learning_rate=RATE)
    strategy = Audited(FedAvg(fraction_evaluate=0.0), tmp_path, recipe=recipe, truth=private)
    strategy.start(InProcessGrid(client(), 2), ArrayRecord(build().state_dict()), num_rounds=1)
    task = Task(build(), torch.nn.functional.cross_entropy, Images(shape=(1, 8, 8)), 10)
    (found,) = audit_exchanges(tmp_path, task, node=3, attacks=["linear_layer"], budget="4s", decoys=5).values()
    assert controls(found)["replay"] == "passed"
    assert found.verdict.status == "leaks"
