"""What a server may send that is no model: odd names, dtypes and shapes; and honest servers that look odd."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from invertigo import data, models
from invertigo.cli.app import app
from invertigo.domains import Images
from invertigo.federation import train_locally
from invertigo.guards import Inspector
from invertigo.guards.nulls import independent_rows, sign_balance_p
from invertigo.types import Batch, Declared, Finding, GuardVerdict, History, Local, LocalTraining, Received, Task
from invertigo.types.printable import printable

DIGITS = data.load("digits")
WIPE = "\x1b[2J\x1b[32mPASS\u202e.weight"
NAMES = ("forward.weight", "train.weight", "_modules.weight", "a..b", ".", "", "a", WIPE)
DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool, torch.int64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64,
)  # fmt: skip
SHAPES = ((20, 40), (0, 8), (8, 0), (8, 4, 3, 3), (0,), (), (8,))


def look_at(path, tensors, *options):
    save_file(tensors, path)
    return CliRunner().invoke(app, ["guard", str(path), *options])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_dtype_and_no_shape_is_a_traceback(tmp_path, dtype, shape):
    odd = torch.ones(shape).to(dtype)
    for others in ({}, {"z.weight": torch.rand(20, 20), "z.bias": torch.rand(20)}):
        told = look_at(
            tmp_path / "a.safetensors", {"a.weight": odd, **others}, "--previous", tmp_path / "a.safetensors"
        )
        assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
        assert told.exit_code in (0, 1, 2)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_name_is_a_traceback_or_reaches_the_terminal_as_it_is(tmp_path, name):
    crafted = torch.rand(1, 40).repeat(20, 1)
    told = look_at(tmp_path / "a.safetensors", {name: crafted.clone(), "z.weight": crafted})
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
    assert told.exit_code in (1, 2)
    assert "\x1b" not in told.output
    assert "\u202e" not in told.output
    held = look_at(tmp_path / "a.safetensors", {name: crafted.clone(), "z.weight": crafted}, "--json")
    assert "\x1b" not in held.output
    if held.exit_code == 1:
        assert json.loads(held.stdout)["decision"] == "block"


def test_messages_and_names_are_written_out():
    found = Finding("r", "load", "defect", 1.0, None, f"'{WIPE}' is odd\nPASS", "none")
    assert found.message == "'\\x1b[2J\\x1b[32mPASS\\u202e.weight' is odd\\nPASS"
    assert printable("Größe 3 µm") == "Größe 3 µm"


@pytest.mark.parametrize(
    "changed",
    [
        {"inspections": -1}, {"inspections": "5"}, {"inspections": True}, {"inspections": 1.5},
        {"inspections": 10**400},
        {"visits": [{"round": "1", "figures": {}}]}, {"visits": [{"round": 1, "figures": {"loss": "2.0"}}]},
        {"visits": [{"round": 1, "figures": {"loss": True}}]}, {"visits": [{"round": 1, "figures": []}]},
        {"visits": [{"round": 1, "figures": {}, "decision": "fine"}]}, {"visits": 3},
        {"visits": [{"round": 1, "figures": {}, "fingerprint": 3}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_history_that_is_none_starts_anew(changed):
    held = json.loads(History().add(GuardVerdict("pass", figures={"loss": 2.0})).dumps())
    read, warning = History.loads(json.dumps({**held, **changed}))
    assert read == History()
    assert warning is not None
    assert "anew" in warning
    assert History.loads("[" * 100_000)[0] == History()


def mlp(seed: int = 0) -> Task:
    model = models.build(
        "mlp", input_shape=DIGITS.shape, num_classes=10, hidden=(96, 48), generator=torch.Generator().manual_seed(seed)
    )
    return Task(model, cross_entropy, Images(shape=DIGITS.shape), 10)


def look(task: Task, history: History | None = None, **declared) -> GuardVerdict:
    batch = DIGITS.batch(slice(0, 64))
    local = Local(
        task=task, batch=batch, update=train_locally(task, batch, LocalTraining()), declared=Declared(**declared)
    )
    return Inspector().inspect(Received(task.model.state_dict()), history or History(), local)


def test_a_run_that_diverged_is_no_malice_and_can_recover():
    task = mlp()
    calm = look(task)
    history = History().add(calm)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.mul_(40)
    assert look(task).figures["loss_level"] > 1000
    verdict = look(task, history)
    assert verdict.decision == "warn"
    assert not verdict.malicious
    assert "divergence" in {f.kind for f in verdict.findings}
    history = history.add(verdict)
    assert look(mlp(), history).decision == "pass", "it has recovered"


def test_a_change_that_lasts_is_not_warned_of_for_ever():
    history = History()
    for number in range(8):
        history = history.add(GuardVerdict("pass", round=number, figures={"update_jump": -3.0 + 0.1 * (number % 2)}))
    warned = GuardVerdict("warn", round=9, figures={"update_jump": 3.0})
    assert len(history.add(warned).add(warned).clean("update_jump")) == 8
    lasting = history.add(warned).add(warned).add(warned)
    assert [value for _, value in lasting.clean("update_jump")][-3:] == [3.0, 3.0, 3.0]
    blocked = history.add(warned).add(GuardVerdict("block", figures={"update_jump": 3.0})).add(warned).add(warned)
    assert len(blocked.clean("update_jump")) == 8, "a refused round is no part of a lasting change"


def test_a_model_pruned_by_magnitude_passes_where_that_is_declared():
    task = mlp(4)
    with torch.no_grad():
        for weight in (p for p in task.model.parameters() if p.ndim > 1):
            weight.mul_(weight.abs() >= weight.abs().flatten().kthvalue(int(0.95 * weight.numel())).values)
    assert look(task, looks=frozenset({"pruned"})).decision == "pass"
    kernels = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    with torch.no_grad():
        for weight in (p for p in kernels.parameters() if p.ndim > 1):
            weight.mul_(weight.abs() >= weight.abs().flatten().kthvalue(int(0.95 * weight.numel())).values)
    own = Task(kernels, cross_entropy, Images(shape=(3, 8, 8)), 10)
    batch = Batch({"images": torch.rand(32, 3, 8, 8), "labels": torch.arange(32) % 10})
    local = Local(task=own, batch=batch, declared=Declared(looks=frozenset({"pruned"})))
    assert Inspector().inspect(Received(kernels.state_dict()), History(), local, ("load", "train")).decision == "pass"


def test_sign_balance_allows_for_rows_that_resemble_each_other():
    """By simulation: rows that share nine tenths of their weights are balanced together or not at all."""
    generator = np.random.default_rng(0)
    p_values, naive = [], []
    for _ in range(300):
        weight = generator.normal(size=(1, 100)) + 0.4 * generator.normal(size=(48, 100))
        negatives, counts = (weight < 0).sum(1).astype(float), np.full(48, 100.0)
        p_values.append(sign_balance_p(negatives, counts, independent_rows(np.sign(weight))))
        naive.append(sign_balance_p(negatives, counts))
    assert np.mean(np.array(naive) < 1e-3) > 0.3
    assert np.mean(np.array(p_values) < 0.01) <= stats.binom.ppf(0.999, 300, 0.01) / 300
    balanced = np.tile([1.0, -1.0], (48, 50))[:, generator.permuted(np.tile(np.arange(100), (48, 1)), axis=1)[0]]
    shuffled = generator.permuted(balanced, axis=1)
    assert sign_balance_p((shuffled < 0).sum(1).astype(float), np.full(48, 100.0), independent_rows(shuffled)) < 1e-12
