"""The example app: in one process, and for real between a SuperLink and two SuperNodes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

pytest.importorskip("flwr")
pytest.importorskip("sklearn")

from invertigo.flower import InProcessGrid, audit_exchanges

APP = Path(__file__).parents[2] / "examples" / "flower_app"


@pytest.fixture
def app(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import guarded.client
    import guarded.server

    return guarded


def settings() -> dict:
    """The app's configuration, flat as Flower hands it to apps."""
    flat: dict = {}
    config = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    for key, value in config.items():
        inner = value if isinstance(value, dict) else None
        flat |= {f"{key}.{k}": v for k, v in inner.items()} if inner is not None else {key: value}
    return flat


def run(app, tmp_path, *, run=None, **own) -> tuple[InProcessGrid, list[list[dict]]]:
    files = [tmp_path / f"{number}.jsonl" for number in range(2)]
    nodes = [
        {"partition-id": number, "num-partitions": 2, "verdicts": str(file), **own} for number, file in enumerate(files)
    ]
    grid = InProcessGrid(app.client.app, 2, run_config=settings() | (run or {}), node_configs=nodes)
    grid.serve(app.server.app)
    return grid, [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_only_the_malicious_round_is_refused(app, tmp_path):
    grid, verdicts = run(app, tmp_path, run={"store": str(tmp_path / "store")})
    assert grid.errors == []
    for node in verdicts:
        assert [v["decision"] for v in node] == ["pass", "block", "pass"]
        assert node[1]["malicious"]
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == ["round-0001", "round-0003"]
    state = torch.Generator().manual_seed(0)
    found = audit_exchanges(
        tmp_path / "store", app.task.task(app.task.build(state)), round=1,
        node=2, attacks=["linear_layer"], budget="10s",
    )  # fmt: skip
    assert list(found) == [(1, 2)]


def test_without_guard_and_defense_the_malicious_server_reads_most_images(app, tmp_path, monkeypatch):
    held: list = []
    strategy = app.server.MaliciousOnce
    monkeypatch.setattr(app.server, "MaliciousOnce", lambda *given: held.append(strategy(*given)) or held[-1])
    own = {"guard.refuse-at": "never", "defense.name": "clip", "defense.norm": 1e9}
    run(app, tmp_path, run={"rounds": 2}, **own)
    rebuilt = torch.cat(held[0].rebuilt)
    truth = torch.cat([app.task.part(number, 2)["images"][64:128] for number in range(2)])
    nearest = torch.cdist(rebuilt.flatten(1).double(), truth.flatten(1).double()).min(0).values
    assert (nearest < 0.05).float().mean() > 0.8


def test_the_code_on_the_page_runs(tmp_path):
    text = (APP.parents[1] / "docs" / "flower.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(r"^1 2 \w+", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_app_runs_between_a_superlink_and_two_supernodes(tmp_path):
    script = str(APP / "run.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert done.stdout.count("round 2: block") == 2
    assert "Every client refused the malicious round, and no other." in done.stdout
