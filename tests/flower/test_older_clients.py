"""Clients with lists of arrays, secure aggregation and Flower's own DP mods, with guard and defense in their places."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("flwr")

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import ServerApp
from flwr.serverapp import strategy as strategies
from stock_apps import Stock, cnn, everything, frozen, head, plain, without_norms

from invertigo.flower import DefenseMod, InProcessGrid, ServerGuard
from invertigo.types import ConfigurationError, LocalTraining


def watched(stock: Stock, **settings):
    verdicts: list = []
    return ServerGuard(stock.local, report=lambda verdict, context: verdicts.append(verdict), **settings), verdicts


def serve(grid, strategy, fit_workflow=None, rounds: int = 2) -> LegacyContext:
    """Run a legacy strategy as Flower's own workflows do."""
    found: list[LegacyContext] = []
    server = ServerApp()

    @server.main()
    def main(grid, context):
        legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=rounds), strategy=strategy)
        DefaultWorkflow(fit_workflow=fit_workflow)(grid, legacy)
        found.append(legacy)

    grid.serve(server)
    return found[0]


def averaging(stock: Stock) -> FedAvg:
    start = [t.numpy() for t in stock.part(stock.build()).values()]
    return FedAvg(
        initial_parameters=ndarrays_to_parameters(start), min_fit_clients=2, min_evaluate_clients=2,
        min_available_clients=2,
    )  # fmt: skip


@pytest.mark.parametrize(("build", "part"), [(cnn, everything), (frozen, head), (cnn, without_norms)])
def test_lists_of_arrays_pass_whatever_part_of_the_model_they_are(build, part):
    stock = Stock(build, part)
    guard, verdicts = watched(stock)
    grid = InProcessGrid(stock.legacy(guard), 2)
    serve(grid, averaging(stock))
    assert grid.errors == []
    assert len(stock.seen) == 4
    assert [v.findings for v in verdicts if v.decision == "block"] == []
    assert all(np.isfinite(v.figures["update_jump"]) for v in verdicts)


def test_the_first_parameters_may_come_from_a_client():
    stock = Stock()
    guard, _ = watched(stock)
    grid = InProcessGrid(stock.legacy(guard), 2)
    serve(grid, FedAvg(min_available_clients=2), rounds=1)
    assert grid.errors == []
    assert len(stock.seen) == 2


def test_a_list_that_could_be_several_things_is_refused_with_the_way_out():
    def twins() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64))
        model.add_module("head", torch.nn.Linear(64, 4))
        return model

    stock = Stock(twins, lambda model: {k: model.state_dict()[k] for k in ("head.weight", "head.bias")})
    guard, verdicts = watched(stock)
    grid = InProcessGrid(stock.legacy(guard), 2)
    serve(grid, averaging(stock), rounds=1)
    assert stock.seen == []
    assert "order=[...]" in verdicts[0].findings[0].message
    named, verdicts = watched(stock, order=("head.weight", "head.bias"))
    grid = InProcessGrid(stock.legacy(named), 2)
    serve(grid, averaging(stock), rounds=1)
    assert len(stock.seen) == 2


def test_arrays_of_scikit_learn_are_a_linear_layer():
    from sklearn.linear_model import LogisticRegression

    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.fc = torch.nn.Flatten(), torch.nn.Linear(64, 4).double()

        def forward(self, images):
            return self.fc(self.flat(images).double())

    stock = Stock(Linear)
    inputs, labels = stock.batch["images"].flatten(1).numpy(), stock.batch["labels"].numpy()
    fitted = LogisticRegression(max_iter=5).fit(inputs, labels)
    arrays = [fitted.coef_ / 10, fitted.intercept_ / 10]
    guard, verdicts = watched(stock)
    grid = InProcessGrid(stock.legacy(guard), 2)
    strategy = FedAvg(initial_parameters=ndarrays_to_parameters(arrays), min_available_clients=2)
    serve(grid, strategy, rounds=2)
    assert grid.errors == []
    assert len(verdicts) == 4
    assert [v.findings for v in verdicts if v.decision == "block"] == []


def secure() -> SecAggPlusWorkflow:
    return SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=2, max_weight=100)


def test_secure_aggregation_runs_with_guard_and_defense_inside_it():
    stock, traces = Stock(plain), []
    guard, verdicts = watched(stock)
    mod = DefenseMod(stock.local, "clip", norm=1e-3, report=lambda trace, context: traces.append(trace))
    grid = InProcessGrid(stock.legacy(secaggplus_mod, guard, mod), 2)
    context = serve(grid, averaging(stock), secure())
    assert grid.errors == []
    assert [v.decision for v in verdicts] == ["pass"] * 4
    # Clipped before it was masked: what the guard saw leave has the clipped norm.
    assert [v.figures["update_jump"] for v in verdicts] == pytest.approx([np.log(1e-3)] * 4, abs=0.05)
    assert len(traces) == 4
    assert context.history.losses_distributed


def test_a_guard_outside_secure_aggregation_says_what_it_cannot_see():
    stock = Stock(plain)
    guard, verdicts = watched(stock)
    grid = InProcessGrid(stock.legacy(guard, secaggplus_mod), 2)
    serve(grid, averaging(stock), secure(), rounds=1)
    assert grid.errors == []
    assert len(stock.seen) == len(verdicts) == 2  # stages that exchange keys are no rounds
    assert all("secaggplus_mod before ServerGuard" in v.skipped["send"] for v in verdicts)


def test_a_defense_outside_secure_aggregation_stops_the_client():
    stock = Stock(plain)
    grid = InProcessGrid(stock.legacy(DefenseMod(stock.local, "clip", norm=1.0), secaggplus_mod), 2)
    serve(grid, averaging(stock), secure(), rounds=1)
    assert stock.seen == []
    assert {type(error) for _, error in grid.errors} == {ConfigurationError}
    assert all("before secaggplus_mod" in str(error) for _, error in grid.errors)


def test_a_message_that_only_says_it_exchanges_keys_yields_no_update():
    stock = Stock(plain)
    guard, verdicts = watched(stock)
    app = stock.app(guard)
    app._registered_funcs.clear()
    app.train()(lambda m, c: Message(RecordDict({"arrays": ArrayRecord(plain().state_dict())}), reply_to=m))
    grid = InProcessGrid(app, 1)
    asked = RecordDict({"secaggplus_configs": ConfigRecord({"stage": "setup"})})
    (reply,) = grid.send_and_receive([Message(asked, 2, "train")])
    assert reply.has_error()
    assert verdicts[0].findings[0].gate == "send"


DP = {
    "local": (LocalDpMod(1.0, 1e-3, 1.0, 1e-5), lambda s: s),
    "fixed": (fixedclipping_mod, lambda s: strategies.DifferentialPrivacyClientSideFixedClipping(s, 0.01, 1.0, 2)),
    "adaptive": (adaptiveclipping_mod, lambda s: strategies.DifferentialPrivacyClientSideAdaptiveClipping(s, 0.1, 2)),
}


@pytest.mark.parametrize("name", DP)
def test_flowers_own_privacy_mods_run_between_guard_and_defense(name):
    mod, wrap = DP[name]
    stock = Stock(plain)
    guard, verdicts = watched(stock)
    grid = InProcessGrid(stock.app(guard, mod, DefenseMod(stock.local, "clip", norm=0.01)), 2)
    inner = strategies.FedAvg(fraction_evaluate=0.0)  # Flower's clipping mods take messages to evaluate for updates
    wrap(inner).start(grid, ArrayRecord(plain().state_dict()), num_rounds=2)
    assert grid.errors == []
    assert len(verdicts) == 4
    assert [v.findings for v in verdicts if v.decision == "block"] == []


def test_messages_to_evaluate_need_no_recipe_of_training():
    stock = Stock()

    def local(message, context):
        rate = float(message.content["config"]["lr"])  # only messages to train have one
        held = stock.local(message, context)
        return type(held)(task=held.task, batch=held.batch, training=LocalTraining(learning_rate=rate))

    verdicts: list = []
    grid = InProcessGrid(stock.app(ServerGuard(local, report=lambda v, c: verdicts.append(v))), 2)
    strategy = strategies.FedAvg()
    result = strategy.start(grid, ArrayRecord(cnn().state_dict()), num_rounds=2, train_config=ConfigRecord({"lr": 0.1}))
    assert grid.errors == []
    assert sorted(result.evaluate_metrics_clientapp) == [1, 2]
    assert stock.asked == ["train"] * 4
    # The gate is there nonetheless: against what was trained on before.
    other = cnn().state_dict() | {"fc.bias": torch.zeros(5)}
    broken = RecordDict({"arrays": ArrayRecord(other), "config": ConfigRecord({})})
    (reply,) = grid.send_and_receive([Message(broken, 2, "evaluate")])
    assert reply.has_error()
    assert "'fc.bias' is (5,), not (4,)" in verdicts[-1].findings[0].message
    # Before any training, a client() that fails costs no message.
    fresh = InProcessGrid(stock.app(ServerGuard(local)), 1)
    whole = RecordDict({"arrays": ArrayRecord(cnn().state_dict()), "config": ConfigRecord({})})
    (reply,) = fresh.send_and_receive([Message(whole, 2, "evaluate")])
    assert reply.has_content()
