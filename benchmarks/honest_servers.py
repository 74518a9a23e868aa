"""How often a client's guard is alarmed by honest servers, counted over federations of many seeds.

    python benchmarks/honest_servers.py                       # 24 federations of digits, 3,456 inspections
    python benchmarks/honest_servers.py --seeds 7 --rounds 60 --epochs 5
    python benchmarks/honest_servers.py --attack seer         # small networks with BatchNorm, and SEER against them
    python benchmarks/honest_servers.py --sweep --seeds 500   # ten networks on five data sets (INVERTIGO_DATA)

With `--attack`, the attack begins at the first, an early, a middle and the last round of each federation, as in the
study `detectability`. Seeds from 200 on are used by no study, and no rule was chosen on them.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from itertools import product

import torch
from torch.nn.functional import cross_entropy

from invertigo import data, models
from invertigo.domains import Images
from invertigo.guards import Inspector
from invertigo.guards.evaluation import Adversary, Check, run
from invertigo.guards.simulation import Federation, Setting, federation
from invertigo.types import InvalidValueError, LocalTraining, Task

NETWORKS = {
    "MLP": ("mlp", {"hidden": [256, 128]}),
    "CNN": ("lenet", {"width": 48, "activation": "relu", "hidden": 128}),
    "BatchNorm": ("mlp", {"hidden": [32, 32], "batch_norm": True}),
    "attention": ("vit", {"patch": 2, "dim": 32, "depth": 1, "heads": 2}),
    "wide, diverging": ("mlp", {"hidden": [256, 128]}),
}
SKEW = {"even": None, "Dirichlet 0.3": 0.3}
SWEEP = (
    ("digits", "MLP", 0.2),
    ("digits", "CNN", 0.2),
    ("digits", "BatchNorm", 0.2),
    ("digits", "attention", 0.1),
    ("digits", "wide, diverging", 2.0),
    ("mnist", "MLP", 0.1),
    ("pneumoniamnist", "MLP", 0.05),
    ("pneumoniamnist", "CNN", 0.05),
    ("faces", "MLP", 0.05),
    ("cifar10", "CNN", 0.05),
)
"""Data set, network and learning rate. MLPs on chest X-rays were once taken for trap weights, divergence for malice."""


def world(
    network: str, skew: str, participation: float, seed: int, args: argparse.Namespace, rate: float = 0.2
) -> Federation:
    images = data.load(args.data, **({"split": "test"} if args.data in ("mnist", "cifar10") else {}))
    channels, height, width = images.images.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)[:1700]
    name, options = NETWORKS[network]
    model = models.build(
        name, input_shape=images.shape, num_classes=images.num_classes, generator=generator, **options
    )  # fmt: skip
    setting = Setting(
        clients=20,
        rounds=args.rounds,
        participation=participation,
        concentration=SKEW[skew],
        training=LocalTraining(sends="difference", learning_rate=rate, epochs=args.epochs, batch_size=32),
        probe=args.probe,
        seed=seed,
    )
    return federation(
        Task(model, cross_entropy, Images((channels, height, width)), images.num_classes), images.batch(order), setting
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201, 202])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=2, help="of local training")
    parser.add_argument("--sweep", action="store_true", help="several data sets and networks in place of --data")
    parser.add_argument("--attack", help="an active attack, against networks with BatchNorm and batches of 16")
    parser.add_argument("--steps", type=int, default=1000, help="in which the attack is trained")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.probe = 16 if args.attack else 64
    last = args.rounds - 1
    at = sorted({0, min(2, last), args.rounds // 2, last}) if args.attack else []
    settings = {"steps": args.steps}
    adversaries = [Adversary(args.attack, args.attack, settings)] if args.attack else []
    networks, parts = (["BatchNorm"], [1.0]) if args.attack else (["MLP", "CNN"], [1.0, 0.2])
    checks: list[Check] = []
    started = time.process_time()
    plan = [(s, args.data, n, k, p, 0.2) for s, n, k, p in product(args.seeds, networks, SKEW, parts)]
    if args.sweep:
        plan = [(s, d, n, "Dirichlet 0.3", 1.0, rate) for s in args.seeds for d, n, rate in SWEEP]
    for seed, args.data, network, skew, part, rate in plan:
        found: list[Check] = []
        try:
            for one in run(world(network, skew, part, seed, args, rate), Inspector(), adversaries, at=at):
                found.append(one)
        except InvalidValueError as error:
            print(f"    ended early: {error}")
        honest = [one for one in found if not one.adversary]
        rules = Counter(rule for one in honest if one.flagged for rule in one.rules)
        print(
            f"{args.data:<15}{network:<16}{skew:<15}{part:>4.0%}  seed {seed}: {counted(honest)} {dict(rules) or ''}",
            flush=True,
        )
        for one in (c for c in found if c.adversary):
            print(
                f"    {one.adversary}, round {one.round}: {one.skipped or one.decision} {', '.join(one.rules)}; loss "
                f"{one.loss:.2f}, rebuilt {one.rebuilt if one.rebuilt is not None else float('nan'):.1%}",
                flush=True,
            )
        checks += honest
    spent = time.process_time() - started
    print(f"{counted(checks)}, {spent:.0f} s CPU")


def counted(checks: list[Check]) -> str:
    """Alarms and, among them, refusals."""
    refused = sum(c.decision == "block" for c in checks)
    return f"{sum(c.flagged for c in checks)} alarms, {refused} refusals in {len(checks)} inspections"


if __name__ == "__main__":
    main()
