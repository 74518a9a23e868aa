"""Honest rounds of ordinary apps pass the guard, whatever strategies make of dtypes and whatever part travels."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ArrayRecord
from flwr.serverapp import strategy as strategies
from stock_apps import Adapted, Stock, adapters, cnn, everything, frozen, head, plain, without_norms

from invertigo.flower import InProcessGrid, ServerGuard
from invertigo.guards import Inspector


def watched(stock: Stock, **settings):
    verdicts: list = []
    return ServerGuard(stock.local, report=lambda verdict, context: verdicts.append(verdict), **settings), verdicts


def run(stock: Stock, strategy, *mods, rounds: int = 3, run_config=None):
    grid = InProcessGrid(stock.app(*mods), 2, run_config=run_config)
    arrays = ArrayRecord({k: v.clone() for k, v in stock.part(stock.build()).items()})
    result = strategy.start(grid, arrays, num_rounds=rounds)
    assert not grid.errors, grid.errors
    return result


STRATEGIES = {
    "FedAvg": {}, "FedAvgM": {"server_momentum": 0.5}, "FedAdam": {"eta": 0.01}, "FedYogi": {"eta": 0.01},
    "FedAdagrad": {"eta": 0.01}, "FedMedian": {}, "FedProx": {"proximal_mu": 0.1}, "FedTrimmedAvg": {"beta": 0.1},
    "QFedAvg": {"client_learning_rate": 0.1, "q": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_batchnorm_network_passes_in_every_round(name):
    build = plain if name == "QFedAvg" else cnn  # Flower's own QFedAvg cannot subtract BatchNorm's integer counter
    stock = Stock(build)
    guard, verdicts = watched(stock)
    run(stock, getattr(strategies, name)(**STRATEGIES[name]), guard)
    assert [v.decision for v in verdicts if v.malicious or v.decision == "block"] == []
    assert len(stock.seen) == len(verdicts) == 6
    own = build().state_dict()
    assert all(seen[k].dtype == own[k].dtype for seen in stock.seen for k in own)


def said(verdicts, text: str) -> bool:
    return any(f.rule == "reading" and text in f.message for v in verdicts for f in v.observed)


PARTS = {"head": (frozen, head), "fedbn": (cnn, without_norms), "lora": (Adapted, adapters)}


@pytest.mark.parametrize("which", PARTS)
def test_a_part_of_the_model_passes_and_the_rest_is_the_clients_own(which):
    build, part = PARTS[which]
    stock = Stock(build, part)
    guard, verdicts = watched(stock)
    run(stock, strategies.FedAvg(), guard, rounds=2)
    assert len(stock.seen) == 4
    assert [v.findings for v in verdicts if v.decision == "block"] == []
    assert said(verdicts, "the client's own")
    # The third gate's norm is of what left: the difference of exactly the parameters that travelled.
    first, again = stock.seen[0], Stock(build, part)
    model = build()
    again.fit(model)
    moved = torch.cat([(part(model)[k].double() - first[k]).flatten() for k in first if first[k].is_floating_point()])
    assert torch.tensor(verdicts[0].figures["update_jump"]).exp() == pytest.approx(moved.norm().item(), rel=1e-3)


def test_an_attack_on_a_part_is_seen():
    stock = Stock(frozen, head)
    guard, verdicts = watched(stock)
    bad = {k: torch.full_like(v, torch.nan) for k, v in head(frozen()).items()}
    grid = InProcessGrid(stock.app(guard), 2)
    strategies.FedAvg().start(grid, ArrayRecord(bad), num_rounds=1)
    assert stock.seen == []
    assert {v.decision for v in verdicts} == {"block"}


def test_lossy_dtypes_are_refused_unless_declared():
    half = Stock(lambda: cnn().half())
    guard, verdicts = watched(half, inspector=Inspector(guards=()))
    grid = InProcessGrid(half.app(guard), 2)
    strategies.FedAvg().start(grid, ArrayRecord(cnn().state_dict()), num_rounds=1)
    assert half.seen == []
    assert "digits would be lost" in verdicts[0].findings[0].message
    strict = Stock()
    guard, verdicts = watched(strict)
    grid = InProcessGrid(strict.app(guard), 2, run_config={"guard.casts": "lossless"})
    strategies.FedAdam(eta=0.01).start(grid, ArrayRecord(everything(cnn())), num_rounds=2)
    assert len(strict.seen) == 2  # of two nodes, in the first round
    assert {v.decision for v in verdicts if v.round == 2} == {"block"}
