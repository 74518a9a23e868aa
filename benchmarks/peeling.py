"""How many of a batch's images does the first linear layer give away exactly?

Batches of 64 images through the default 784/3072-1000-10 ReLU network in float32; batches of 128 CIFAR-10 images in
float64 with the weights of Shariati and Alambardar Meybodi (2026, arXiv 2609.09659: hidden weights N(0, 0.5^2), no
bias, Xavier output), whose share recovered is .666; and small networks, where little can be told apart, only to see
whether an image that is not in the batch is ever called exact. An image counts as exact below an L2 distance of 0.01
(theirs); a rebuilt image at 0.1 or more from every true one, or the same true image twice, counts as wrong.

Usage: INVERTIGO_DATA=... python benchmarks/peeling.py [--seeds 10] [--small 300] [--only mnist64]
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from invertigo import data
from invertigo.attacks import reconstruct
from invertigo.domains import Images
from invertigo.types import Knowledge, Observation, RequirementError

EXACT, WRONG = 0.01, 0.1


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    images: str
    size: int
    hidden: int = 1000
    dtype: torch.dtype = torch.float32
    papers: bool = False


SETTINGS = (
    Setting("mnist64", "mnist", 64),
    Setting("cifar64", "cifar10", 64),
    Setting("cifar128", "cifar10", 128, dtype=torch.float64, papers=True),
)
SMALL = tuple(
    Setting(f"small-{images}-{size}-{hidden}", images, size, hidden, dtype)
    for images in ("mnist", "cifar10")
    for size, hidden in ((2, 16), (4, 32), (8, 64), (16, 128), (8, 24))
    for dtype in (torch.float32, torch.float64)
)


def network(setting: Setting, inputs: int) -> nn.Sequential:
    """The network of a setting, from PyTorch's global seed."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs, setting.hidden), nn.ReLU(), nn.Linear(setting.hidden, 10))
    if setting.papers:
        nn.init.normal_(model[1].weight, 0, 0.5)
        nn.init.zeros_(model[1].bias)
        nn.init.xavier_uniform_(model[3].weight)
        nn.init.zeros_(model[3].bias)
    return model.to(setting.dtype)


def run(setting: Setting, seed: int, pool: data.ImageSet) -> tuple[int, int, float]:
    """Images exact, images wrong, seconds."""
    chosen = torch.randperm(len(pool.images), generator=torch.Generator().manual_seed(seed))[: setting.size]
    images, labels = pool.images[chosen].to(setting.dtype), pool.labels[chosen]
    torch.manual_seed(seed)
    model = network(setting, images[0].numel())
    gradient = torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters()))
    seen = Observation.from_gradients(
        model, cross_entropy, gradient, domain=Images(tuple(images.shape[1:])), num_classes=10,
        knowledge=Knowledge(num_examples=setting.size),
    )  # fmt: skip
    started = time.perf_counter()
    try:
        rebuilt = reconstruct(seen, "linear_layer").fields["images"]
    except RequirementError:
        return 0, 0, time.perf_counter() - started
    return *count(images.flatten(1).double(), rebuilt.flatten(1).double()), time.perf_counter() - started


def count(truth: Tensor, rebuilt: Tensor) -> tuple[int, int]:
    """How many true images were rebuilt, and how many rebuilt ones are wrong or a second copy of a true one."""
    distance, nearest = torch.cdist(rebuilt, truth).min(1)
    exact = len(set(nearest[distance < EXACT].tolist()))
    copies = int((distance < WRONG).sum()) - len(set(nearest[distance < WRONG].tolist()))
    return exact, int((distance >= WRONG).sum()) + copies


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--small", type=int, default=300, help="runs on small networks in all")
    parser.add_argument("--only", default="", help="settings whose name holds this")
    chosen = parser.parse_args()
    pools = {name: data.load(name, split="test", limit=2000) for name in ("mnist", "cifar10")}
    for setting in SETTINGS:
        if chosen.only in setting.name:
            table(setting, chosen.seeds, pools[setting.images])
    if chosen.only in "small" and chosen.small:
        small(chosen.small, pools)


def table(setting: Setting, seeds: int, pool: data.ImageSet) -> None:
    """One row, with what each seed gave."""
    found = []
    for seed in range(seeds):
        found.append(run(setting, seed, pool))
        print(
            f"  {setting.name} seed {seed}: {found[-1][0]} exact, {found[-1][1]} wrong, {found[-1][2]:.1f} s",
            flush=True,
        )
    exact = [one[0] for one in found]
    print(
        f"{setting.name}: median {statistics.median(exact)} of {setting.size}, mean share "
        f"{statistics.mean(exact) / setting.size:.3f}, wrong {sum(one[1] for one in found)}, "
        f"median {statistics.median(one[2] for one in found):.1f} s, n = {seeds} seeds",
        flush=True,
    )


def small(runs: int, pools: dict[str, data.ImageSet]) -> None:
    """Many small networks: is a wrong image ever returned?"""
    exact = wrong = private = 0
    for number in range(runs):
        setting = SMALL[number % len(SMALL)]
        one = run(setting, 1000 + number, pools[setting.images])
        exact, wrong, private = exact + one[0], wrong + one[1], private + setting.size
        if one[1]:
            print(f"  {setting.name} seed {1000 + number}: {one[1]} wrong", flush=True)
    print(f"small networks: {exact} of {private} images exact, {wrong} wrong, n = {runs} runs", flush=True)


if __name__ == "__main__":
    main()
