"""The grid does what a SuperLink and its SuperNodes do, as far as an app can tell."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from small_federation import Node, ask, network

from invertigo.flower import InProcessGrid, write_arrays
from invertigo.types import InvalidValueError


def counting(message, context):
    seen = context.state.get("seen", ConfigRecord({"n": 0}))["n"] + 1
    context.state["seen"] = ConfigRecord({"n": seen})
    if message.content["config"]["server-round"] == 99:
        raise RuntimeError("no")
    return Message(
        RecordDict({"c": ConfigRecord({"n": seen, "id": context.node_config["partition-id"]})}), reply_to=message
    )


def test_each_node_keeps_its_state_unless_its_app_fails():
    grid = InProcessGrid(Node().app(step=counting), 2)
    assert [ask(grid, {}, round=r).content["c"]["n"] for r in (1, 2)] == [1, 2]
    assert ask(grid, {}, round=99).has_error()
    assert [str(e) for _, e in grid.errors] == ["no"]
    assert ask(grid, {}, round=3).content["c"]["n"] == 3
    assert "seen" not in grid.contexts[3].state


def test_a_client_cannot_reach_the_servers_tensors():
    arrays = write_arrays(network().state_dict())
    record = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    grid = InProcessGrid(Node().app(), 2)
    replies = list(grid.send_and_receive([Message(record, node, "train") for node in grid.get_node_ids()]))
    assert [r.metadata.src_node_id for r in replies] == [2, 3]
    assert all(r.metadata.reply_to_message_id for r in replies)
    assert len(arrays) == len(network().state_dict())  # both nodes consumed a copy of theirs


def test_a_real_strategy_trains():
    grid = InProcessGrid(Node().app(), 2)
    result = FedAvg().start(grid, write_arrays(network().state_dict()), num_rounds=2)
    assert grid.errors == []
    moved = result.arrays.to_torch_state_dict()["head.bias"] - network().state_dict()["head.bias"]
    assert moved.abs().sum() > 0


def test_a_server_app_is_served_with_the_runs_configuration():
    app, told = ServerApp(), {}

    @app.main()
    def main(grid, context):
        told.update(context.run_config, nodes=len(list(grid.get_node_ids())))

    InProcessGrid(Node().app(), 3, run_config={"rounds": 5}).serve(app)
    assert told == {"rounds": 5, "nodes": 3}


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidValueError, match="2 nodes and 1 node configurations"):
        InProcessGrid(Node().app(), 2, node_configs=[{}])
    with pytest.raises(InvalidValueError, match="0 nodes"):
        InProcessGrid(Node().app(), 0)
    grid = InProcessGrid(Node().app(), 1)
    (reply,) = grid.send_and_receive([Message(RecordDict(), 77, "train")])
    assert reply.has_error()
    assert "no node 77" in reply.error.reason


def test_without_flower_the_extra_is_named():
    code = "import sys; sys.modules['flwr'] = None\nimport invertigo.flower as f\nf.exchanges\nf.ServerGuard"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'invertigo[flower]'" in run.stderr.splitlines()[-1]
    assert torch.__version__
