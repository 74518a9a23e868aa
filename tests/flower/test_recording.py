"""Whatever drives a federation, its rounds are kept as they crossed the wire, with the recipe, and audited offline."""

from __future__ import annotations

import stat

import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.serverapp import strategy as strategies
from stock_apps import Stock, cnn, frozen, head, plain
from test_older_clients import averaging, secure, serve

from invertigo import LocalTraining
from invertigo.flower import Audited, InProcessGrid, Recipe, Recorded, audit_exchanges, exchanges
from invertigo.flower.wire import Wire, entropy, spread, wire_flags
from invertigo.types import ConfigurationError, CorruptFileError, InvalidValueError

SGD = LocalTraining(sends="difference", learning_rate=0.5)
QUICK = {"attacks": ["linear_layer"], "budget": "5s", "decoys": 5}


class OwnStart(strategies.FedAvg):
    """A strategy that drives its rounds itself, and has something to tell afterwards."""

    def start(self, grid, initial_arrays, num_rounds=3, **settings):
        self.told = []
        for number in range(1, num_rounds + 1):
            content = RecordDict({"arrays": initial_arrays, "config": ConfigRecord({"server-round": number})})
            replies = grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()])
            self.told.append(len([r for r in replies if r.has_content()]))
        return "its own result"


def test_a_strategy_stays_what_it_is(tmp_path):
    stock, strategy = Stock(plain), OwnStart()
    audited = Audited(strategy, tmp_path)
    result = audited.start(InProcessGrid(stock.app(), 2), ArrayRecord(plain().state_dict()), num_rounds=2)
    assert result == "its own result"
    assert audited.told == [2, 2]
    assert isinstance(audited, OwnStart)
    audited.fraction_train = 0.25
    assert strategy.fraction_train == 0.25
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = audited.nothing_such
    assert [(e.round, e.node) for e in exchanges(tmp_path)] == [(1, 2), (1, 3), (2, 2), (2, 3)]
    assert len(list(tmp_path.glob("round-*/sent-*"))) == 1  # the same model in both rounds


def test_it_may_be_driven_by_another_strategy(tmp_path):
    stock = Stock(plain)
    inner = Audited(strategies.FedAvg(fraction_evaluate=0.0), tmp_path)
    outer = strategies.DifferentialPrivacyServerSideFixedClipping(inner, 0.01, 1.0, 2)
    outer.start(InProcessGrid(stock.app(), 2), ArrayRecord(plain().state_dict()), num_rounds=1)
    assert len(exchanges(tmp_path)) == 2


@pytest.mark.parametrize("how", ["strategy", "grid"])
def test_older_strategies_are_recorded(tmp_path, how):
    stock = Stock(frozen, head)
    grid = InProcessGrid(stock.legacy(), 2)
    if how == "strategy":
        serve(grid, Audited(averaging(stock), tmp_path))
    else:
        serve(Recorded(grid, tmp_path), averaging(stock))
    found = exchanges(tmp_path)
    assert [(e.round, e.node) for e in found] == [(1, 2), (1, 3), (2, 2), (2, 3)]
    assert {e.num_examples for e in found} == {16}
    task = stock.local(Message(RecordDict(), 2, "train"), None).task
    seen = found[0].observation(task, SGD)
    again = frozen()
    stock.fit(again)
    for name in ("fc.weight", "fc.bias"):
        moved = again.state_dict()[name] - frozen().state_dict()[name]
        assert torch.allclose(seen.update.tensors[name], moved, atol=1e-7)
    assert set(seen.update.tensors) == {"fc.weight", "fc.bias"}


def test_pushed_and_pulled_messages_are_paired_by_their_names(tmp_path):
    stock = Stock(plain)
    grid = Recorded(InProcessGrid(stock.app(), 2), tmp_path)
    for number in (1, 2):
        content = RecordDict({"arrays": ArrayRecord(plain(number).state_dict()), "config": ConfigRecord({"lr": 0.1})})
        names = grid.push_messages([Message(content, node, "train", group_id=str(number)) for node in (2, 3)])
        grid.pull_messages(reversed(list(names)))
    found = exchanges(tmp_path)
    assert [(e.round, e.node) for e in found] == [(1, 2), (1, 3), (2, 2), (2, 3)]
    assert torch.equal(found[2].sent["fc.bias"], plain(2).state_dict()["fc.bias"])
    assert found[0].config == {"lr": 0.1}


def test_only_the_owner_reads_what_was_recorded(tmp_path):
    stock, folder = Stock(plain), tmp_path / "rounds"
    Audited(strategies.FedAvg(), folder, recipe=SGD).start(
        InProcessGrid(stock.app(), 2), ArrayRecord(plain().state_dict()), num_rounds=1
    )
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*.safetensors")} == {0o600}


def test_two_recordings_in_one_folder_are_not_mixed(tmp_path):
    for rounds in (2, 1):
        Audited(strategies.FedAvg(), tmp_path).start(
            InProcessGrid(Stock(plain).app(), 2), ArrayRecord(plain().state_dict()), num_rounds=rounds
        )
    with pytest.raises(InvalidValueError, match="2 recordings"):
        exchanges(tmp_path)
    assert len(exchanges(tmp_path, round=1)) == 2


def test_a_recipe_is_declared_once():
    config = {"recipe.learning-rate": 0.1, "recipe.epochs": 2, "recipe.batch-size": 8, "recipe.optimizer": "adam"}
    recipe = Recipe.of({**config, "other": 1})
    assert recipe.training == LocalTraining(
        sends="difference", learning_rate=0.1, epochs=2, batch_size=8, optimizer="adam"
    )
    assert Recipe.loads(recipe.dumps()) == recipe
    assert isinstance(recipe.optimizer(plain()), torch.optim.Adam)
    told = recipe.under({"lr": 0.01, "local-epochs": 1, "proximal-mu": 0.5, "server-round": 3})
    assert (told.learning_rate, told.epochs, told.proximal, told.batch_size) == (0.01, 1, 0.5, 8)
    assert recipe.optimizer(frozen(), {"lr": 0.01}).param_groups[0]["lr"] == 0.01
    with pytest.raises(ConfigurationError, match="Did you mean 'learning_rate'"):
        Recipe.of({"recipe.learnig-rate": 0.1})
    with pytest.raises(ConfigurationError, match="must be positive"):
        Recipe.of({"recipe.learning-rate": -1.0})
    for text in ("", "[]", '{"version": 1}', '{"version": 9}', recipe.dumps().replace("adam", "adan")):
        with pytest.raises(CorruptFileError):
            Recipe.loads(text)


def recorded(folder, rate: float, **settings):
    """One FedProx round of two clients, which train as the recorded recipe says where `rate` is 0.1."""
    stock = Stock(plain)
    strategy = Audited(strategies.FedProx(proximal_mu=0.0), folder, **settings)
    strategy.start(
        InProcessGrid(stock.app(), 2), ArrayRecord(plain().state_dict()), num_rounds=1,
        train_config=ConfigRecord({"lr": rate}),
    )  # fmt: skip
    return stock, stock.local(Message(RecordDict(), 2, "train"), None).task


def controls(audit) -> dict[str, str]:
    return {control.name: control.status for control in audit.record.controls}


def test_the_recorded_recipe_and_the_rounds_own_configuration_are_used_and_checked_by_replay(tmp_path):
    stock, task = recorded(tmp_path / "right", 0.1, recipe=SGD)  # 0.5 declared, 0.1 told by the server: 0.1 it was
    truth = {"truth": lambda round, node: stock.batch, "round": 1, "node": 2}
    (right,) = audit_exchanges(tmp_path / "right", task, **truth, **QUICK).values()
    assert controls(right)["replay"] == "passed"
    (wrong,) = audit_exchanges(
        tmp_path / "right", task, LocalTraining(sends="difference", learning_rate=0.1, epochs=3), **truth, **QUICK
    ).values()
    assert controls(wrong)["replay"] != "passed"
    assert wrong.verdict.status != "resists"


def test_without_the_truth_or_the_recipe_nothing_is_called_safe(tmp_path):
    _, task = recorded(tmp_path, 0.1)
    with pytest.raises(InvalidValueError, match="recipe=Recipe"):
        audit_exchanges(tmp_path, task, **QUICK)
    (blind,) = audit_exchanges(tmp_path, task, SGD, round=1, node=2, **QUICK).values()
    assert blind.verdict.status == "inconclusive"


def test_what_was_said_to_protect_the_updates_is_compared_with_what_travelled(tmp_path):
    _, task = recorded(tmp_path / "plain", 0.1, said=("encryption",))
    assert {f.code for f in wire_flags(exchanges(tmp_path / "plain"))} == {"plaintext_despite_encryption"}
    (audit,) = audit_exchanges(
        tmp_path / "plain", task, SGD, round=1, node=2, said=("secure_aggregation",), **QUICK
    ).values()
    codes = {flag.code for flag in audit.record.flags}
    assert {"plaintext_despite_encryption", "single_updates_readable"} <= codes
    assert "2 of 2" in next(f.message for f in audit.record.flags if f.code == "single_updates_readable")
    with pytest.raises(InvalidValueError, match="Did you mean 'encryption'"):
        Audited(strategies.FedAvg(), tmp_path, said=("encrypton",))


def test_secure_aggregation_leaves_nothing_to_audit_and_says_so(tmp_path):
    stock = Stock(plain)
    grid = InProcessGrid(stock.legacy(secaggplus_mod), 2)
    serve(Recorded(grid, tmp_path, said=("secure_aggregation",), recipe=SGD), averaging(stock), secure(), rounds=1)
    found = exchanges(tmp_path)
    assert [e.wire.kind for e in found] == ["masked", "masked"]
    assert wire_flags(found) == []
    task = stock.local(Message(RecordDict(), 2, "train"), None).task
    with pytest.raises(InvalidValueError, match="None of the 2 updates was readable"):
        audit_exchanges(tmp_path, task, **QUICK)
    assert [f.code for f in wire_flags(found[:1])] == ["aggregate_of_one"]


def test_masks_and_ciphers_are_told_from_what_only_looks_so():
    generator = torch.Generator().manual_seed(0)
    modulus = 1 << 32
    uniform = torch.randint(0, modulus, (5000,), generator=generator)
    quantised = (torch.randn(5000, generator=generator) * 1e5 + modulus / 1000).long()
    assert spread(uniform, modulus) < 60 < 90 < spread(quantised, modulus)
    assert spread(uniform[:10], modulus) is None
    random = torch.randint(0, 256, (20000,), generator=generator, dtype=torch.uint8).numpy().tobytes()
    floats = torch.randn(5000, generator=generator).numpy().tobytes()
    assert entropy(floats) < 7.9 < entropy(random)
    assert entropy(b"abc") is None
    assert Wire.of(Wire("masked", 8.0, 20.0).facts()) == Wire("masked", 8.0, 20.0)


def test_bytes_that_are_no_arrays_are_recorded_as_such(tmp_path):
    generator = torch.Generator().manual_seed(0)
    sealed = torch.randint(0, 256, (20000,), generator=generator, dtype=torch.uint8).numpy().tobytes()
    encoded = b"CKKS" + torch.randn(5000, generator=generator).numpy().tobytes()

    class Sealed(Stock):
        def app(self, *mods):
            app = super().app()
            app._registered_funcs.clear()

            @app.train()
            def train(message, context):
                data = encoded if message.metadata.dst_node_id == 3 else sealed
                record = ArrayRecord({"all": Array("bytes", (len(data),), "sealed", data)})
                metrics = MetricRecord({"num-examples": 4})
                return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

            return app

    grid = Recorded(InProcessGrid(Sealed(cnn).app(), 2), tmp_path, said=("encryption",))
    content = RecordDict({"arrays": ArrayRecord(cnn().state_dict())})
    grid.send_and_receive([Message(content, node, "train") for node in (2, 3)])
    found = exchanges(tmp_path)
    assert [e.wire.kind for e in found] == ["opaque", "opaque"]
    (flag,) = wire_flags(found)
    assert flag.code == "encoded_not_encrypted"
    assert "node 3" in flag.message


def test_the_order_of_mods_is_checked():
    from flwr.client.mod import fixedclipping_mod
    from flwr.clientapp.mod import LocalDpMod

    from invertigo.flower import DefenseMod, ServerGuard, checked_mods

    stock = Stock(plain)
    guard, defense = ServerGuard(stock.local), DefenseMod(stock.local, "clip", norm=1.0)
    noise = LocalDpMod(1.0, 1.0, 1.0, 1e-5)
    right = [secaggplus_mod, guard, noise, defense]
    assert checked_mods(right) == right
    for wrong in ([guard, secaggplus_mod], [defense, guard], [defense, noise], [fixedclipping_mod, guard]):
        with pytest.raises(ConfigurationError, match="has to come first"):
            checked_mods(wrong)
