"""What a server keeps of its rounds is what crossed the wire, and an audit of it finds what a client gave away."""

from __future__ import annotations

import shutil

import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import Context, Message
from flwr.serverapp.strategy import FedAvg
from small_federation import Node, examples, network

from invertigo import LocalTraining
from invertigo.flower import Audited, Exchange, InProcessGrid, ServerGuard, audit_exchanges, exchanges, write_arrays
from invertigo.types import CorruptFileError, InvalidValueError, Local, MismatchError

STEP = LocalTraining(sends="gradient", learning_rate=0.1)


def small(message: Message, context: Context) -> Local:
    return Node(batch=examples(2)).local(message, context)


@pytest.fixture
def folder(tmp_path):
    """Three rounds of two nodes, of which every second round is kept."""
    nodes = Node(batch=examples(2))
    strategy = Audited(FedAvg(), tmp_path / "rounds", every=2)
    strategy.start(InProcessGrid(nodes.app(), 2), write_arrays(network().state_dict()), num_rounds=3)
    return tmp_path / "rounds"


def test_each_pair_is_kept_once_in_every_so_many_rounds(folder):
    found = exchanges(folder)
    assert [(e.round, e.node) for e in found] == [(1, 2), (1, 3), (3, 2), (3, 3)]
    assert {e.num_examples for e in found} == {2}
    for name, tensor in network().state_dict().items():
        assert torch.equal(found[0].sent[name], tensor)
        assert not torch.equal(found[2].sent[name], tensor)
    assert len(list(folder.glob("round-0001/sent-*"))) == 1
    assert [(e.round, e.node) for e in exchanges(folder, round=3, node=2)] == [(3, 2)]


def test_the_strategys_result_is_its_own(tmp_path):
    ends = []
    for strategy in (FedAvg(), Audited(FedAvg(), tmp_path)):
        result = strategy.start(InProcessGrid(Node().app(), 2), write_arrays(network().state_dict()), num_rounds=2)
        ends.append(result.arrays.to_torch_state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_observation_is_the_clients_own_gradient(folder):
    (one,) = exchanges(folder, round=1, node=2)
    seen = one.observation(small(None, None).task, STEP)
    node = Node(batch=examples(2))
    loss = torch.nn.functional.cross_entropy(node.model(node.batch["images"]), node.batch["labels"])
    expected = torch.autograd.grad(loss, list(node.model.parameters()))
    for (name, got), wanted in zip(seen.update.tensors.items(), expected):
        assert torch.allclose(got, wanted, atol=2e-6), name
    assert seen.knowledge.labels is None
    steps = one.observation(small(None, None).task, LocalTraining(sends="difference", learning_rate=0.1))
    assert torch.allclose(steps.update.tensors["head.bias"], -0.1 * seen.update.tensors["head.bias"], atol=1e-7)


def test_a_stored_round_is_audited_offline(folder):
    settings = {"attacks": ["linear_layer"], "budget": "20s", "decoys": 10}
    found = audit_exchanges(
        folder, small(None, None).task, STEP, round=1, node=3, truth=lambda round, node: examples(2), **settings
    )
    ((key, audit),) = found.items()
    assert key == (1, 3)
    assert audit.verdict.status == "leaks"
    assert audit.worst.attack == "linear_layer"
    assert audit.worst.recovered >= 1


def test_refused_rounds_leave_nothing_to_audit(tmp_path):
    nodes = Node()
    guard = ServerGuard(nodes.local)
    broken = network().state_dict() | {"head.bias": torch.full((4,), torch.nan)}
    strategy = Audited(FedAvg(), tmp_path)
    strategy.start(InProcessGrid(nodes.app(guard), 2), write_arrays(broken), num_rounds=1)
    with pytest.raises(InvalidValueError, match="holds 0 exchanges"):
        exchanges(tmp_path)


def test_damaged_and_foreign_files_are_refused(folder, tmp_path):
    path = folder / "round-0001" / "node-2.safetensors"
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(CorruptFileError, match="nothing else is read"):
        exchanges(folder, round=1, node=2)
    shutil.copy(next(folder.glob("round-0001/sent-*")), path)
    with pytest.raises(CorruptFileError, match="was not written by"):
        exchanges(folder, round=1, node=2)
    with pytest.raises(InvalidValueError, match="none of round=7"):
        exchanges(folder, round=7)
    (one,) = exchanges(folder, round=3, node=3)
    with pytest.raises(MismatchError, match="model that was sent"):
        one.observation(Node(model=torch.nn.Linear(64, 4)).local(None, None).task, STEP)
    with pytest.raises(InvalidValueError, match="every=0"):
        Audited(FedAvg(), tmp_path, every=0)


def test_another_version_is_refused(tmp_path, monkeypatch):
    import invertigo.flower.exchange as module

    state = network().state_dict()
    monkeypatch.setattr(module, "VERSION", 0)
    path = Exchange(1, 2, state, state, None).save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(CorruptFileError, match="version 0, this is version 1"):
        Exchange.load(path)
