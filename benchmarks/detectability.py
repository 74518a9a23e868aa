"""False alarms of the guards in honest federations, and attacked rounds they let leave.

    python benchmarks/detectability.py --runs 3 --rounds 20             # bundled digits
    INVERTIGO_DATA=... python benchmarks/detectability.py --data cifar10 --images 3000 --runs 1

Each run simulates federated averaging for two architectures, even and Dirichlet(0.3) labels, all and a fifth of the
clients a round. Attacks replace the model at the first, an early, a middle and the last round. The null laws and their
constants were chosen with `TUNED_ON` in view; every other attack is held out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo import attacks, data, models
from invertigo.data import ImageSet
from invertigo.domains import Images
from invertigo.guards import Inspector
from invertigo.guards.evaluation import Adversary, Check, area, check, noisy, partly, run
from invertigo.guards.simulation import Setting, federation
from invertigo.types import Declared, History, Local, LocalTraining, Received, Requirement, Task

TUNED_ON = ("imprint", "trap_weights", "quantile_bias")
ADAPTIVE = (
    Adversary("partial QBI 10 %", "quantile_bias", {"calibrated": True, "share": 0.1}, adaptive=True),
    Adversary("calibrated QBI", "quantile_bias", {"calibrated": True}, adaptive=True),
    Adversary("trap weights, jittered 20 %", "trap_weights", {}, noisy(0.2), adaptive=True),
    Adversary("imprint, permuted", "imprint", {}, noisy(0.0, True), adaptive=True),
    Adversary("imprint, permuted, noise 1 %", "imprint", {}, noisy(0.01, True), adaptive=True),
    Adversary("imprint, permuted, noise 10 %", "imprint", {}, noisy(0.1, True), adaptive=True),
    Adversary("imprint, permuted, noise 50 %", "imprint", {}, noisy(0.5, True), adaptive=True),
    Adversary("class fishing, softened", "class_fishing", {"multiplier": 0.2, "bias": 20.0}, adaptive=True),
    Adversary("feature fishing, softened", "feature_fishing", {"multiplier": 30.0}, adaptive=True),
    Adversary("imprint, drift 10 %", "imprint", {}, partly(0.1), adaptive=True),
    Adversary("imprint, drift 30 %", "imprint", {}, partly(0.3), adaptive=True),
    Adversary("imprint, drift 60 %", "imprint", {}, partly(0.6), adaptive=True),
)


def adversaries() -> list[Adversary]:
    """Every registered active attack with its defaults, and the adaptive ones whose attack is there."""
    known = [n for n in attacks.registry if Requirement.CRAFTED_MODEL in attacks.registry[n].requires]
    return [Adversary(n, n) for n in known] + [a for a in ADAPTIVE if a.attack in known]


def architectures(shape: tuple[int, int, int], classes: int) -> dict[str, Callable[[torch.Generator], nn.Module]]:
    """A fully connected network, and a convolution with hidden linear layers behind it."""
    channels, height, width = shape
    features = 16 * math.ceil(height / 2) * math.ceil(width / 2)

    def mlp(generator: torch.Generator) -> nn.Module:
        return models.build("mlp", input_shape=shape, num_classes=classes, hidden=(256, 128), generator=generator)

    def cnn(generator: torch.Generator) -> nn.Module:
        with models.building.weights_drawn_by(generator):
            return nn.Sequential(
                nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes),
            )  # fmt: skip

    return {"mlp": mlp, "cnn": cnn}


def look_alikes(images: ImageSet) -> list[Check]:
    """Honest models that resemble crafted ones, inspected with their declarations: none may raise an alarm."""
    domain, classes = Images(shape=images.shape), images.num_classes
    batch, local = images.batch(slice(0, 64)), LocalTraining()
    found = []
    for seed, (look, change) in itertools.product(range(5), LOOKS.items()):
        for name, build in architectures(images.shape, classes).items():
            model = build(torch.Generator().manual_seed(seed))
            with torch.no_grad():
                change(model)
            task = Task(model, cross_entropy, domain, classes)
            inspector = Inspector(declared=Declared(looks=frozenset({look})))  # type: ignore[arg-type]
            verdict = inspector.inspect(
                Received(model.state_dict()), History(), Local(task=task, batch=batch, training=local)
            )
            found.append(replace(check("", 0, 0, verdict), adversary=f"{look} {name}"))
    return found


def _weights(model: nn.Module) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.ndim > 1]


def _pruned(model: nn.Module) -> None:
    for weight in _weights(model):
        weight.mul_(weight.abs() > weight.abs().median())


def _quantised(model: nn.Module) -> None:
    for weight in _weights(model):
        step = weight.abs().max() / 127
        weight.copy_((weight / step).round() * step)


def _zero_head(model: nn.Module) -> None:
    _weights(model)[-1].zero_()
    list(model.parameters())[-1].zero_()


def _dirac(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)


LOOKS = {"pruned": _pruned, "quantised": _quantised, "zero_head": _zero_head, "dirac": _dirac}


def table(checks: Sequence[Check]) -> str:
    """One line for each adversary."""
    honest = [c for c in checks if not c.adversary]
    scores = [c.score for c in honest]
    alarms = sum(c.flagged for c in honest)
    lines = [
        f"honest: {len(honest)} checks, {alarms} alarms, largest isolated share {max(c.isolated for c in honest):.2f}"
    ]
    lines.append(
        f"{'adversary':<32}{'rounds':>7}{'flagged':>9}{'blocked':>9}{'rebuilt':>9}{'AUC':>7}  missed at 20 %+ | rules"
    )
    for name in dict.fromkeys(c.adversary for c in checks if c.adversary):
        mine = [c for c in checks if c.adversary == name]
        held = [c for c in mine if not c.skipped]
        if not held:
            lines.append(f"{name:<32} not possible here: {mine[0].skipped[:70]}")
            continue
        share = sum(c.rebuilt for c in held) / len(held)
        missed = sum(not c.flagged and c.rebuilt > 0.2 for c in held)
        rules = sorted({rule for c in held for rule in c.rules})
        lines.append(
            f"{name:<32}{len(held):>7}{sum(c.flagged for c in held) / len(held):>9.1%}"
            f"{sum(c.decision == 'block' for c in held) / len(held):>9.1%}{share:>9.2f}"
            f"{area(scores, [c.score for c in held]):>7.3f}  {missed:>5} | {', '.join(rules)[:60]}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--architectures", nargs="*", default=["mlp", "cnn"])
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--honest-only", action="store_true", help="no attacks: many more honest checks an hour")
    parser.add_argument("--only", nargs="*", help="adversaries by name")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = data.load(args.data, split=args.split)
    if args.images:
        images = replace(images, images=images.images[: args.images], labels=images.labels[: args.images])
    domain, classes = Images(shape=images.shape), images.num_classes
    training = LocalTraining(sends="difference", learning_rate=args.lr, epochs=args.epochs, batch_size=32)
    chosen = [a for a in adversaries() if not args.only or a.name in args.only]
    checks: list[Check] = []
    grid = itertools.product(range(args.runs), args.architectures, (None, 0.3), (1.0, 0.2))
    for index, (number, name, concentration, participation) in enumerate(grid):
        started = time.process_time()
        setting = Setting(
            rounds=args.rounds, concentration=concentration, participation=participation, training=training,
            seed=1000 * args.first_seed + 17 * number + index,
        )  # fmt: skip
        build = architectures(images.shape, classes)[name]
        world = federation(images, build, lambda model: Task(model, cross_entropy, domain, classes), setting)
        at = sorted({0, 2, args.rounds // 2, args.rounds - 1})
        mine = list(run(world, Inspector(), chosen, at=() if args.honest_only else at))
        checks += mine
        honest = [c for c in mine if not c.adversary]
        print(
            f"run {number} {name} labels {concentration or 'even'} participation {participation}: {len(honest)} honest "
            f"checks, {sum(c.flagged for c in honest)} alarms {[c.rules for c in honest if c.flagged][:3]}, loss "
            f"{honest[0].loss:.2f} to {honest[-1].loss:.2f}, {time.process_time() - started:.0f} s",
            flush=True,
        )
        if args.out:
            args.out.write_text(json.dumps([asdict(c) for c in checks]))
    alike = look_alikes(images)
    print(f"look-alikes: {len(alike)} checks, alarms: {[(c.adversary, c.rules) for c in alike if c.flagged]}")
    print(table(checks))


if __name__ == "__main__":
    main()
