"""The Python in the README and in the documentation runs, on a small step of its reader's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ["README.md", "docs/quickstart.md", "docs/cli.md", "docs/attacks.md", "docs/defenses.md"],
    ["docs/extending.md"],
    ["docs/guard.md"],
    ["docs/watching.md"],
]
"""Pages that share a process; the README and the page on extending register an attack of the same name."""

READER = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy
import invertigo

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Sigmoid(), nn.Linear(8, 4))
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 4
batch = images, labels
truth = {"images": images, "labels": labels}

def train_step(batch):
    optimizer.zero_grad()
    loss_fn(model(batch[0]), batch[1]).backward()
    optimizer.step()

sent = {name: tensor.clone() for name, tensor in model.state_dict().items()}
train_step(batch)
returned = {name: tensor.clone() for name, tensor in model.state_dict().items()}
model.load_state_dict(sent)
observation = invertigo.Observation.from_parameters(
    model, loss_fn, sent, returned, domain=invertigo.Images(shape=(3, 32, 32)), learning_rate=0.1, num_examples=8
)
"""


def snippets(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert code, f"{page} has no Python"
    return code.replace('"60s"', '"3s"').replace("iterations=2000", "iterations=20").replace(
        '"auto")', '"auto", seconds=3.0)'
    )  # fmt: skip


@pytest.mark.parametrize("pages", PAGES, ids=len)
def test_the_code_on_a_page_runs(pages, tmp_path):
    parts = [
        f"print({page!r}, flush=True)\nexec({READER + snippets(page)!r}, {{'__name__': 'page'}})" for page in pages
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(parts)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-500:] + run.stderr[-3000:]


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_inside_the_repository_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_commands_of_the_readme_are_known(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^invertigo (\w+)", text, re.MULTILINE))
    assert named >= {"audit", "list", "show", "check", "report"}
    program = str(Path(sys.executable).with_name("invertigo"))
    for command in named:
        told = subprocess.run([program, command, "--help"], capture_output=True, text=True, cwd=tmp_path)
        assert told.returncode == 0, told.stderr


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
