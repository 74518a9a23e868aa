"""Damped Gauss-Newton beside L-BFGS (`dlg`, eight restarts as one batch): how exactly, and at what cost.

    python benchmarks/gauss_newton.py [--images 8] [--seconds 60]

LeNet in float64, one image an update. `uniform` draws the weights from U(-0.5, 0.5) as Deep Leakage from Gradients
does; `default` is PyTorch's initialisation. Pictures are CIFAR-10's where that set is found (`INVERTIGO_DATA`), else
bundled photographs; and bundled faces. CPU seconds are those of one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch

import invertigo
from invertigo import data, models
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, MissingDataError, Task, ThreatLevel


@dataclass(frozen=True)
class Case:
    """Pictures, a network and an attack."""

    pictures: str
    init: str
    activation: str
    attack: str
    restarts: int


CASES = (
    Case("cifar10", "uniform", "sigmoid", "dlg", 8),
    Case("cifar10", "uniform", "sigmoid", "gauss_newton", 1),
    Case("faces", "default", "sigmoid", "gauss_newton", 1),
    Case("faces", "default", "gelu", "gauss_newton", 1),
)


def pictures(name: str, count: int) -> data.ImageSet:
    """The first `count` pictures of a set; photographs where CIFAR-10 is not at hand."""
    try:
        return data.load(name, limit=count)
    except MissingDataError:
        return data.load("photos", limit=count)


def attacked(case: Case, images: data.ImageSet, number: int, seconds: float) -> tuple[float, float, bool]:
    """PSNR in dB and CPU seconds of picture `number`, and whether the attack ran to its own end."""
    shape, classes = tuple(images.images.shape[1:]), max(len(images.classes), 2)
    domain = invertigo.Images(shape)
    weights = torch.Generator().manual_seed(number)
    model = models.build(
        "lenet", input_shape=shape, num_classes=classes, generator=weights, activation=case.activation, init=case.init
    ).double()
    batch = Batch({"images": images.images[number : number + 1].double(), "labels": images.labels[number : number + 1]})
    task = Task(model, torch.nn.CrossEntropyLoss(), domain, classes)
    observation = observe(task, batch, LocalTraining(mode="eval"), level=ThreatLevel.INFERENCE_MODE)
    started = time.process_time()
    found = invertigo.reconstruct(
        observation,
        case.attack,
        seed=number,
        restarts=case.restarts,
        progress=lambda _: time.process_time() - started > seconds,
    )
    spent = time.process_time() - started
    return domain.score(batch, found.fields).mean("psnr"), spent, found.finished


def row(case: Case, count: int, seconds: float) -> str:
    """Medians over the pictures."""
    images = pictures(case.pictures, count)
    runs = [attacked(case, images, number, seconds) for number in range(len(images.images))]
    psnr, spent = [run[0] for run in runs], [run[1] for run in runs]
    cells = [images.name, case.init, case.activation, f"{case.attack} × {case.restarts}", len(runs)]
    cells += [f"**{statistics.median(psnr):.1f}**", f"{min(psnr):.1f} … {max(psnr):.1f}"]
    cells += [f"{statistics.median(spent):.1f}", f"{max(spent):.1f}", sum(run[2] for run in runs)]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds an attack may take")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | weights | activation | attack × restarts | images | median PSNR dB | range | ", end="")
    print("median CPU s | largest | ran to their end |\n|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for case in CASES:
        print(row(case, arguments.images, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
