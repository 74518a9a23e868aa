"""Every registered defense against an attacker who ignores it and one who knows it.

    python benchmarks/informed_attackers.py                       # all defenses, about half an hour on one core
    python benchmarks/informed_attackers.py --only sign top_k     # some of them
    python benchmarks/informed_attackers.py --images 2 --releases 10
    python benchmarks/informed_attackers.py --data cifar10 --first 4   # on other pictures, here its 5th to 8th

One image an update (two for MixUp), labels known, in a small untrained convolutional network on 16x16 crops of the
bundled photographs, or on another set of colour images; both attackers run `inverting_gradients` with the same start
and 300 iterations. Mean PSNR in dB over the images after matching. The flat picture of an image's mean colour is scored
beside it: a figure under that carries no information.

Figures "earlier" are those of our study of released defenses, made with other code, other pictures and the reference
implementations of the defenses where there are any: orders and gaps compare, decibels only roughly.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import invertigo
from invertigo import data, defenses
from invertigo.federation import observe_round
from invertigo.types import Batch, Defense, LocalTraining, Observation, Task

SHAPE, CLASSES, WIDTHS = (3, 16, 16), 10, (12, 24, 24, 48)
ATTACK: dict[str, Any] = {"iterations": 300, "total_variation": 1e-3}


@dataclass(frozen=True)
class Row:
    """One defense as it is set, and what an earlier study found for naive and informed attackers, in dB."""

    defense: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    naive: float | None = None
    informed: float | None = None
    examples: int = 1


UNDEFENDED = Row("none", naive=23.2)
ROWS = (
    Row("gaussian_noise", {"std": 1e-3}, 18.2),
    Row("gaussian_noise", {"std": 1e-2}, 8.4, 15.2),
    Row("clip", {"norm": 1.0}, 23.2, 23.2),
    Row("sign", {}, 6.3, 12.8),
    Row("quantise", {"bits": 8}, 23.2),
    Row("quantise", {"bits": 4}),
    Row("top_k", {"k": 0.1}, 14.1, 22.7),
    Row("percentile_pruning", {"percentile": 90.0}),
    Row("soteria", {"percentile": 80.0}, 7.6, 19.8),
    Row("dual_pruning", {}, 7.4, 19.3),
    Row("censor", {}, 6.1),
    Row("dp_sgd", {"noise_multiplier": 0.01}),
    Row("dp_sgd", {"noise_multiplier": 1.1}),
    Row("user_dp", {"noise_multiplier": 0.005}),
    Row("per_example_clip", {"norm": 1.0}),
    Row("mixup", examples=2),
)
"""Settings other than the defaults, and the figures to compare with. A defense without a row runs at its defaults."""


def rows(only: list[str] | None) -> list[Row]:
    """The undefended client, then every registered defense."""
    named = {row.defense for row in ROWS}
    every = [UNDEFENDED, *ROWS, *(Row(name) for name in defenses.registry if name not in named)]
    wanted = {"none", *(only or defenses.registry)} & {"none", *defenses.registry}
    return [row for row in every if row.defense in wanted]


def network() -> nn.Module:
    """Four convolutions, two max-poolings, one linear layer: 26,266 weights, untrained."""
    layers: list[nn.Module] = []
    channels = SHAPE[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for number, width in enumerate(WIDTHS):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if number % 2 else []
            channels = width
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (SHAPE[1] // 4) ** 2, CLASSES))


def pictures(count: int, name: str = "photos", first: int = 0) -> Tensor:
    """Pictures of a set from the one numbered `first` on; those of the photographs are crops."""
    return data.load(name, size=SHAPE[1], limit=first + count).images[first:]


def public_batch() -> Batch:
    """Crops that no split shares with the private ones, for defenses that are trained or tuned beforehand."""
    crops = data.load("photos", size=SHAPE[1], split="public", limit=64).images
    return Batch({"images": crops, "labels": torch.arange(len(crops)) % CLASSES})


def batches(images: Tensor, examples: int) -> list[Batch]:
    """One batch a picture: it, and as many of those that follow it as the defense needs."""
    numbers = [(torch.arange(examples) + first) % len(images) for first in range(len(images))]
    return [Batch({"images": images[chosen], "labels": chosen % CLASSES}) for chosen in numbers]


def seen(task: Task, batch: Batch, secret: int, defense: Defense | None, releases: int) -> Observation:
    """What an adversary who knows the labels holds of one batch."""
    drawn = torch.Generator().manual_seed(secret)
    found = observe_round(
        task, batch, LocalTraining(mode="eval"), level=2, defense=defense, secret=drawn, releases=releases
    )
    return found.observation


def psnr(observation: Observation, batch: Batch) -> float:
    """Of one attack on what is observed."""
    found = invertigo.reconstruct(observation, "inverting_gradients", **ATTACK)
    scores = observation.task.domain.score(batch, found.fields)
    return torch.as_tensor(scores.per_example["psnr"]).mean().item()


def measure(row: Row, images: Tensor, releases: int = 1) -> tuple[list[float], list[float]]:
    """PSNR of each image for the naive and for the informed attacker."""
    task = Task(network(), nn.functional.cross_entropy, invertigo.Images(SHAPE), CLASSES)
    defense = None if row.defense == "none" else defenses.make(row.defense, **row.settings)
    if defense is not None:
        task = defense.prepare(task, public_batch(), generator=torch.Generator().manual_seed(0))
    naive, informed = [], []
    for number, batch in enumerate(batches(images, row.examples)):
        observation = seen(task, batch, number, defense, releases)
        naive.append(psnr(observation, batch))
        if defense is not None:
            informed.append(psnr(observation.informed(defense.adversary_view(observation)), batch))
    return naive, informed


def line(row: Row, images: Tensor, releases: int) -> str:
    """One line of the table."""
    started = time.process_time()
    naive, informed = measure(row, images, releases)
    settings = ", ".join(f"{name} {value:g}" for name, value in row.settings.items())
    cells = [
        row.defense, settings, _mean(naive), _mean(informed), _earlier(row.naive), _earlier(row.informed),
        " ".join(f"{value:.1f}" for value in informed or naive), f"{time.process_time() - started:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _mean(values: list[float]) -> str:
    return f"**{statistics.mean(values):.1f}**" if values else ""


def _earlier(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


HEADER = """\
| defense | settings | naive | informed | earlier, naive | earlier, informed | each image, informed | CPU s |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="DEFENSE", help="only these defenses")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--data", default="photos", help="which set of colour images")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture taken from it")
    parser.add_argument("--releases", type=int, default=1, help="how often the client sends the same batch")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = pictures(arguments.images, arguments.data, arguments.first)
    flat = [-10 * (x - x.mean((1, 2), keepdim=True)).square().mean().log10().item() for x in images]
    print(f"Mean colour alone: {statistics.mean(flat):.1f} dB ({' '.join(f'{v:.1f}' for v in flat)}).\n\n{HEADER}")
    for row in rows(arguments.only):
        print(line(row, images, arguments.releases), flush=True)


if __name__ == "__main__":
    main()
