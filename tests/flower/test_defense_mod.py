"""A mod does to the reply exactly what the defense does to an update, or says why it cannot."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ArrayRecord
from small_federation import Node, ask, network

from invertigo.defenses import make, registry
from invertigo.flower import DefenseMod, InProcessGrid, ServerGuard, read_arrays
from invertigo.types import ConfigurationError, UnknownNameError

ON_UPDATES = {
    "clip", "dual_pruning", "gaussian_noise", "laplace_noise", "percentile_pruning", "qsgd", "quantise", "sign",
    "top_k", "user_dp",
}  # fmt: skip


def update_of(reply, sent) -> dict[str, torch.Tensor]:
    returned = read_arrays(reply.content["arrays"])
    return {name: returned[name] - sent[name] for name in sent}


def raw_update() -> dict[str, torch.Tensor]:
    node, sent = Node(), network().state_dict()
    return update_of(ask(InProcessGrid(node.app(), 1), sent), sent)


@pytest.mark.parametrize("name", registry)
def test_defenses_of_finished_updates_run_and_the_others_say_why_they_cannot(name):
    if name in ON_UPDATES:
        assert DefenseMod(Node().local, name).defense == make(name)
        return
    with pytest.raises(ConfigurationError, match=f"'{name}' cannot run as a mod") as raised:
        DefenseMod(Node().local, name)
    assert "train_locally" in str(raised.value)


@pytest.mark.parametrize("name", sorted(ON_UPDATES))
def test_each_defense_changes_the_reply(name):
    sent, traces = network().state_dict(), []
    node = Node()
    settings = {"norm": 0.001} if name == "clip" else {}
    mod = DefenseMod(node.local, name, report=lambda trace, context: traces.append(trace), **settings)
    update = update_of(ask(InProcessGrid(node.app(mod), 1), sent), sent)
    assert traces[0].defense == name
    assert not traces[0].undefended
    raw = raw_update()
    assert any(not torch.equal(update[k], raw[k]) for k in raw)


def test_clipping_and_pruning_are_what_they_are_outside_flower():
    sent, raw = network().state_dict(), raw_update()
    clipped = update_of(ask(_grid("clip", norm=0.005), sent), sent)
    assert torch.stack([t.norm() for t in clipped.values()]).norm().item() == pytest.approx(0.005, rel=1e-2)
    pruned = update_of(ask(_grid("top_k", k=0.1), sent), sent)
    entries = sum(t.numel() for t in raw.values())
    kept = sum(int(t.count_nonzero()) for t in pruned.values())
    assert kept == pytest.approx(0.1 * entries, rel=0.02)
    for name in raw:
        held = pruned[name] != 0
        assert torch.allclose(pruned[name][held], raw[name][held], atol=1e-7)


def _grid(name, run=None, own=None, **settings) -> InProcessGrid:
    node = Node()
    return InProcessGrid(node.app(DefenseMod(node.local, name, **settings)), 1, run_config=run, node_configs=own)


def test_the_configuration_names_the_defense_and_the_nodes_own_comes_first():
    sent = network().state_dict()
    run = {"defense.name": "clip", "defense.norm": 0.005}
    assert _norm(ask(_grid(None, run), sent), sent) == pytest.approx(0.005, rel=1e-2)
    own = [{"defense.name": "clip", "defense.norm": 0.002}]
    assert _norm(ask(_grid(None, run, own), sent), sent) == pytest.approx(0.002, rel=1e-2)
    fixed = _grid("clip", run={"defense.name": "clip", "defense.norm": 9.0}, norm=0.003)
    assert _norm(ask(fixed, sent), sent) == pytest.approx(0.003, rel=1e-2)


def _norm(reply, sent) -> float:
    return torch.stack([t.norm() for t in update_of(reply, sent).values()]).norm().item()


@pytest.mark.parametrize(
    ("run", "error", "reason"),
    [
        ({}, ConfigurationError, "names one"),
        ({"defense.name": "clap"}, UnknownNameError, "Did you mean 'clip'"),
        ({"defense.name": "clip", "defense.nrm": 1.0}, ConfigurationError, "norm"),
        ({"defense.name": "dp_sgd"}, ConfigurationError, "on_gradient"),
    ],
)
def test_no_defense_is_never_taken_for_one(run, error, reason):
    node = Node()
    grid = InProcessGrid(node.app(DefenseMod(node.local)), 1, run_config=run)
    assert ask(grid, network().state_dict()).has_error()
    ((_, raised),) = grid.errors
    assert isinstance(raised, error)
    assert reason in str(raised)
    assert node.trained == 0


def test_settings_without_a_defense_and_memory_between_rounds_are_refused():
    with pytest.raises(ConfigurationError, match="no defense"):
        DefenseMod(Node().local, norm=1.0)
    with pytest.raises(ConfigurationError, match="process of its own"):
        DefenseMod(Node().local, "dual_pruning", error_feedback=True)


def test_buffers_and_metrics_leave_as_they_are():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 4))
    node = Node(model=model)
    sent = {k: v.clone() for k, v in model.state_dict().items()}
    reply = ask(InProcessGrid(node.app(DefenseMod(node.local, "gaussian_noise", std=10.0)), 1), sent)
    returned, trained = read_arrays(reply.content["arrays"]), {}
    plain = Node(model=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 4)))
    trained = read_arrays(ask(InProcessGrid(plain.app(), 1), sent).content["arrays"])
    assert list(returned) == list(trained)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(returned[name], trained[name])
    assert (returned["2.weight"] - trained["2.weight"]).std() > 1
    assert reply.content["metrics"]["num-examples"] == 32


def test_the_guard_before_the_defense_examines_the_defended_update():
    node, verdicts = Node(), []
    guard = ServerGuard(node.local, report=lambda verdict, context: verdicts.append(verdict))
    grid = InProcessGrid(node.app(guard, DefenseMod(node.local, "clip", norm=1e-3)), 1)
    ask(grid, network().state_dict())
    assert torch.tensor(verdicts[0].figures["update_jump"]).exp().item() == pytest.approx(1e-3, rel=0.05)


def test_releases_of_a_node_are_counted_for_its_epsilon():
    pytest.importorskip("opacus")
    traces: list = []
    node = Node()
    mod = DefenseMod(node.local, make("user_dp", noise_multiplier=1.0), report=lambda t, c: traces.append(t))
    grid = InProcessGrid(node.app(mod), 1)
    for _ in range(3):
        ask(grid, network().state_dict())
    spent = [trace.facts["epsilon"] for trace in traces]
    assert spent[0] < spent[1] < spent[2]


def test_a_defense_draws_anew_in_each_round_and_from_a_given_generator_when_asked():
    sent = network().state_dict()
    grid = _grid("gaussian_noise", std=1.0)
    first, second = (update_of(ask(grid, sent), sent)["head.bias"] for _ in range(2))
    assert not torch.equal(first, second)
    seeded = [
        update_of(ask(_grid("gaussian_noise", std=1.0, generator=torch.Generator().manual_seed(5)), sent), sent)
        for _ in range(2)
    ]
    assert torch.equal(seeded[0]["head.bias"], seeded[1]["head.bias"])


def test_a_reply_of_another_model_is_an_error():
    node = Node()

    def other(message, context):
        reply = node.step(message, context)
        reply.content["arrays"] = ArrayRecord({"x": torch.zeros(2)})
        return reply

    grid = InProcessGrid(node.app(DefenseMod(node.local, "sign"), step=other), 1)
    assert ask(grid, network().state_dict()).has_error()
    assert "does not belong to this model" in str(grid.errors[0][1])
