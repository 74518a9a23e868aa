"""The guard refuses before the client's code runs, says nothing to the server, and cannot be switched off by it."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, replace

import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from small_federation import Node, ask, examples, network, planted

from invertigo.flower import GuardSettings, InProcessGrid, ServerGuard
from invertigo.flower.memory import GUARD
from invertigo.guards import Budget, Inspector
from invertigo.guards.inspector import every_guard
from invertigo.types import INVERTIGO, ConfigurationError, Declared, Finding, History


def guarded(node: Node, *, nodes: int = 1, run=None, own=None, step=None, **settings) -> tuple[InProcessGrid, list]:
    verdicts: list = []
    guard = ServerGuard(node.local, report=lambda verdict, context: verdicts.append(verdict), **settings)
    return InProcessGrid(node.app(guard, step=step), nodes, run_config=run, node_configs=own), verdicts


def test_an_honest_round_passes_all_three_gates():
    node = Node()
    grid, verdicts = guarded(node)
    assert ask(grid, network().state_dict()).has_content()
    (verdict,) = verdicts
    assert verdict.decision == "pass"
    assert node.trained == 1
    assert {"architecture", "loss_level", "duplicate_rows", "update_jump"} <= set(verdict.figures)
    expected = torch.cat([p.grad.flatten() for p in node.model.parameters()]).norm() * 0.1
    assert torch.tensor(verdict.figures["update_jump"]).exp() == pytest.approx(expected.item(), rel=1e-3)


def test_a_planted_model_is_refused_before_the_clients_code_sees_it():
    node = Node()
    grid, verdicts = guarded(node)
    reply = ask(grid, planted(Node()))
    assert reply.has_error()
    assert node.trained == 0
    assert verdicts[0].malicious
    told = f"{reply.error.reason} {reply.error.code}"
    assert not any(word in told for word in ("duplicate", "row", "gate", "malice", verdicts[0].findings[0].rule))


def test_every_refusal_looks_the_same_to_the_server_unless_it_shall_be_told():
    bad = network().state_dict() | {"head.bias": torch.full((4,), torch.nan)}
    silent, told = (ask(guarded(Node(), tell_server=t)[0], bad).error for t in (False, True))
    assert silent == ask(guarded(Node())[0], planted(Node())).error
    assert "'head.bias' holds 4 NaN or Inf" in told.reason


def pickled() -> RecordDict:
    record = ArrayRecord(network().state_dict())
    record["head.bias"] = Array("float32", (4,), "numpy.ndarray", b"\x80\x04K\x01.")
    return RecordDict({"arrays": record})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({**network().state_dict(), "head.bias": torch.zeros(5)}, r"'head.bias' is \(5,\), not \(4,\)"),
        ({k: v for k, v in network().state_dict().items() if k != "head.bias"}, "'head.bias' is missing"),
        ({**network().state_dict(), "extra": torch.zeros(1)}, "'extra' is not in the client's model"),
        ({k: v.double() * 1e60 for k, v in network().state_dict().items()}, "torch.float64, not torch.float32"),
        ({**network().state_dict(), "head.bias": torch.full((4,), torch.inf)}, "NaN or Inf"),
        (pickled(), "is a pickle"),
        (RecordDict(), "0 array records"),
    ],
    ids=["shape", "missing", "extra", "dtype", "inf", "pickle", "nothing"],
)
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_what_is_no_model_of_the_clients_is_refused_with_the_reason(content, reason, kind):
    node = Node()
    grid, verdicts = guarded(node)
    copied = RecordDict(dict(content.items())) if isinstance(content, RecordDict) else content
    assert ask(grid, copied, kind=kind).has_error()
    assert node.trained == 0
    assert verdicts[0].findings[0].kind == "defect"
    assert re.search(reason, verdicts[0].findings[0].message)


def test_what_the_client_returns_is_examined_before_it_leaves():
    node = Node()

    def diverged(message, context):
        reply = node.step(message, context)
        reply.content["arrays"] = ArrayRecord({k: v * torch.nan for k, v in node.model.state_dict().items()})
        return reply

    def renamed(message, context):
        reply = node.step(message, context)
        reply.content["arrays"] = ArrayRecord({f"model.{k}": v for k, v in node.model.state_dict().items()})
        return reply

    for step, reason in ((diverged, "NaN or Inf"), (renamed, "does not belong to this model")):
        grid, verdicts = guarded(node, step=step)
        assert ask(grid, network().state_dict()).has_error()
        assert verdicts[0].findings[0].gate == "send"
        assert reason in verdicts[0].findings[0].message


@dataclass(frozen=True, kw_only=True)
class Nervous:
    """Warns of every model."""

    name, paper, gate, needs = "nervous", INVERTIGO, "load", frozenset()

    def inspect(self, *_):
        return (Finding("nervous", "load", "malice", 1.0, None, "a model came", "wait", alarming=True),)


NERVOUS = Inspector(guards=(*every_guard(), Nervous()))


def test_a_warning_is_refused_only_where_warnings_are():
    grid, verdicts = guarded(Node(), inspector=NERVOUS)
    assert ask(grid, network().state_dict()).has_content()
    assert verdicts[0].decision == "warn"
    strict, _ = guarded(Node(), refuse_at="warn", inspector=NERVOUS)
    assert ask(strict, network().state_dict()).has_error()
    lax, verdicts = guarded(Node(), refuse_at="never")
    assert ask(lax, planted(Node())).has_content()
    assert verdicts[0].decision == "block"


def test_one_example_leaks_in_every_honest_round_and_that_is_said_and_not_held_against_the_server():
    grid, verdicts = guarded(Node(batch=examples(1)))
    assert ask(grid, network().state_dict()).has_content()
    assert verdicts[0].recoverable == (0,)
    assert not verdicts[0].malicious


@pytest.mark.parametrize(("refuse_at", "stays"), [("block", True), ("never", False)])
def test_rows_that_show_single_examples_stay_with_the_client(refuse_at, stays, monkeypatch):
    """The places are given by hand; the rest of the update has to leave bit for bit as it was trained."""
    places = torch.tensor([0, 5])
    leak = Finding("isolation", "send", "leak", 1.0, None, "two entries", "drop them", drop={"head.weight": places})
    inspect = Inspector.inspect

    def leaking(self, received, history, local, gates):
        verdict = inspect(self, received, history, local, gates)
        return replace(verdict, observed=(*verdict.observed, leak)) if gates == ("send",) else verdict

    monkeypatch.setattr(Inspector, "inspect", leaking)
    node, sent = Node(), network().state_dict()
    grid, _ = guarded(node, refuse_at=refuse_at)
    (record,) = ask(grid, sent).content.array_records.values()
    left = {name: torch.from_numpy(array.numpy()) for name, array in record.items()}
    trained = {name: tensor.clone() for name, tensor in node.model.state_dict().items()}
    if stays:
        trained["head.weight"].view(-1)[places] = sent["head.weight"].reshape(-1)[places]
    assert all(torch.equal(left[name], tensor) for name, tensor in trained.items())


def history(grid: InProcessGrid) -> History:
    held, warning = History.loads(next(iter(grid.contexts.values())).state[GUARD]["history"])
    assert warning is None
    return held


def test_the_node_remembers_its_rounds_with_their_gaps_and_nothing_of_evaluation():
    grid, _ = guarded(Node())
    ask(grid, network().state_dict(), round=1)
    ask(grid, network().state_dict(), round=1, kind="evaluate")
    ask(grid, planted(Node()), round=4)
    ask(grid, network().state_dict(), round=9)
    held = history(grid)
    assert [(v.round, v.decision) for v in held.visits] == [(1, "pass"), (2, "block"), (3, "pass")]
    assert held.inspections == 3


@pytest.mark.parametrize("told", [(1, 2, 3, 4, 5, 6), (5, 10**9, 2, -3, "x", 10**18)], ids=["honest", "lies"])
def test_the_client_counts_its_rounds_itself(told):
    assert [visit.round for visit in history(told_rounds(told)[0]).visits] == [1, 2, 3, 4, 5, 6]


def test_leaps_of_the_servers_clock_hide_no_jump_and_spend_no_budget():
    tests = []
    for told in ((1, 2, 3, 4, 5, 6), (1, 10**9, 10**9 + 1, 10**12, 10**15, 10**18)):
        grid, verdicts = told_rounds(told)
        tests.append([(f.rule, f.p_value) for verdict in verdicts for f in verdict.observed])
        assert history(grid).inspections == 6
    assert tests[0] == tests[1]
    assert {"loss_jump", "update_jump"} <= {rule for rule, p in tests[0] if p is not None}


def told_rounds(told):
    grid, verdicts = guarded(Node())
    state = network().state_dict()
    for number, said in enumerate(told):
        # A loss that falls from round to round, so that there is a trend to be judged.
        record = RecordDict({"arrays": ArrayRecord({k: v * (1 - 0.1 * number) for k, v in state.items()})})
        record["config"] = ConfigRecord({"server-round": said})
        grid.send_and_receive([Message(record, 2, "train")])
    return grid, verdicts


@pytest.mark.parametrize(
    "held",
    [
        ConfigRecord({"history": json.dumps({"version": 0, "visits": []})}),
        ConfigRecord({"history": "{not json"}),
        ConfigRecord({"other": 1}),
        ArrayRecord(),
    ],
    ids=["version", "json", "key", "kind"],
)
def test_a_history_of_another_version_starts_anew_with_a_warning(held, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    grid, _ = guarded(Node())
    grid.contexts[2].state[GUARD] = held
    with caplog.at_level(logging.WARNING, "flwr"):
        assert ask(grid, network().state_dict()).has_content()
    assert "anew" in caplog.text
    assert history(grid).inspections == 1


def test_the_run_may_make_the_guard_stricter_and_never_milder(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    milder = {"guard.refuse-at": "never", "guard.tell-server": True, "guard.budget-block": 1e-9, "guard.examples": 1}
    grid, _ = guarded(Node(), run=milder)
    with caplog.at_level(logging.WARNING, "flwr"):
        reply = ask(grid, planted(Node()))
    assert reply.has_error()
    assert "row" not in reply.error.reason
    for key in milder:
        assert key in caplog.text
    strict, _ = guarded(Node(), run={"guard.refuse-at": "warn"}, inspector=NERVOUS)
    assert ask(strict, network().state_dict()).has_error()


def test_the_node_itself_has_the_last_word():
    own = [{"guard.refuse-at": "never"}]
    assert ask(guarded(Node(), own=own)[0], planted(Node())).has_content()
    told = ask(guarded(Node(), own=[{"guard.tell-server": True}])[0], planted(Node()))
    assert "malice" in told.error.reason


def test_looks_are_declared_by_the_client_only():
    run = {"guard.looks": "pruned"}
    _, ignored = _settings(run)
    assert ignored == ["guard.looks='pruned'"]
    settings, ignored = _settings({}, run)
    assert settings.declared_looks == {"pruned"}
    assert ignored == []


def _settings(run, node=None):
    return GuardSettings().under(run, node or {})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"guard.refuse_at": "warn"}, "Did you mean 'refuse-at'"),
        ({"guard.refuse-at": "block!"}, "guard.refuse-at is 'block!'"),
        ({"guard.budget-block": 0.5}, "above guard.budget-warn"),
        ({"guard.looks": "prund"}, "Did you mean 'pruned'"),
    ],
)
def test_a_setting_that_is_not_understood_stops_the_client(config, reason):
    node = Node()
    grid, _ = guarded(node, own=[config])
    assert ask(grid, network().state_dict()).has_error()
    ((_, error),) = grid.errors
    assert isinstance(error, ConfigurationError)
    assert reason in str(error)
    assert node.trained == 0


def test_what_the_inspector_was_built_with_counts():
    node = Node()
    guard = ServerGuard(node.local, Inspector(budget=Budget(block=1e-8, warn=1e-4), declared=Declared(fingerprint="a")))
    grid = InProcessGrid(node.app(guard), 1)
    assert ask(grid, network().state_dict()).has_error()  # another fingerprint than the announced one
    assert node.trained == 0


def test_a_query_is_no_business_of_the_guards():
    grid, verdicts = guarded(Node())
    assert ask(grid, RecordDict(), kind="query").has_content()
    assert verdicts == []


def test_an_error_of_the_client_is_passed_on():
    node = Node()

    def failing(message, context):
        raise RuntimeError("out of disk")

    grid, _ = guarded(node, step=failing)
    assert ask(grid, network().state_dict()).has_error()
    assert [str(error) for _, error in grid.errors] == ["out of disk"]
