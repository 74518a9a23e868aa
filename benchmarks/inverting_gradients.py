"""`inverting_gradients` beside the attack of the same name in breaching, on equal terms.

    python benchmarks/inverting_gradients.py --peer-python PATH    # an interpreter that has breaching, see README.md
    python benchmarks/inverting_gradients.py                       # our side alone

Both sides get the same weights, images, labels, number of iterations and first candidates (normal; another seed in each
repetition); everything else is each side's default. Networks are untrained and in inference mode. Times are CPU time
of one thread (`time.process_time`), the whole attack divided by its iterations; the sides take turns within one run,
and the medians over repetitions are reported. PSNR is the mean over repetitions and over images after matching.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import invertigo
from invertigo import data, models
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, Observation, Task, ThreatLevel

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
LABELS = (0, 3, 5, 7, 8, 1)
SHAPE, CLASSES = (3, 32, 32), 10
WORKER = Path(__file__).parent / "peer" / "breaching_worker.py"
AGREEMENT = 1e-5


@dataclass(frozen=True)
class Case:
    """A model of ours, the one of breaching that is built alike, and how long they are attacked."""

    model: str
    peer: str
    batch: int
    iterations: int
    restarts: int = 1
    seed: int = 1000
    options: Mapping[str, object] = field(default_factory=dict)
    hyperparameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Iterations over all restarts."""
        return self.iterations * self.restarts


_LENET = Case("lenet", "lenet_zhu", 1, 300, options={"init": "uniform"})
_CONVNET = Case("convnet", "convnet", 1, 40)
_RESNET = Case("resnet", "resnet18", 1, 15, options={"depth": 18})
CASES = (
    _LENET,
    replace(_LENET, batch=4),
    _CONVNET,
    replace(_CONVNET, batch=4, iterations=15),
    _RESNET,
    replace(_RESNET, batch=4, iterations=8),
    replace(_LENET, iterations=100, restarts=8),
    replace(_LENET, batch=4, iterations=100, restarts=8),
)
LONG = (replace(_LENET, iterations=4000), replace(_LENET, batch=4, iterations=4000))


@dataclass(frozen=True)
class Outcome:
    """What one attack gave: mean PSNR in dB, CPU seconds an iteration and restart, first and last objective."""

    psnr: float
    seconds: float
    first: float
    last: float


def private_batch(count: int) -> tuple[Batch, invertigo.Images]:
    """The first `count` of six bundled photographs, as the model reads them, with fixed labels."""
    domain = invertigo.Images(SHAPE, MEAN, STD)
    pixels = data.load("six_photos", size=SHAPE[-1]).images[:count]
    return Batch({"images": domain.from_pixels(pixels), "labels": torch.tensor(LABELS[:count])}), domain


def observation_of(case: Case) -> tuple[Observation, Batch]:
    """The gradient of the private batch in an untrained network, labels known."""
    batch, domain = private_batch(case.batch)
    weights = torch.Generator().manual_seed(0)
    model = models.build(case.model, input_shape=SHAPE, num_classes=CLASSES, generator=weights, **case.options)
    task = Task(model.eval(), torch.nn.CrossEntropyLoss(), domain, CLASSES)
    return observe(task, batch, LocalTraining(mode="eval"), level=ThreatLevel.INFERENCE_MODE), batch


def mean_psnr(observation: Observation, batch: Batch, images: Tensor) -> float:
    """Mean over images, matched, of PSNR on pixels clamped to [0, 1]."""
    scores = observation.task.domain.score(batch, {"images": images, "labels": batch["labels"]})
    return torch.as_tensor(scores.per_example["psnr"]).mean().item()


def ours(case: Case, observation: Observation, batch: Batch) -> Outcome:
    """Our attack, through the public call."""
    started = time.process_time()
    found = invertigo.reconstruct(
        observation,
        "inverting_gradients",
        seed=case.seed,
        iterations=case.iterations,
        restarts=case.restarts,
        **case.hyperparameters,
    )
    seconds = (time.process_time() - started) / case.steps
    return Outcome(mean_psnr(observation, batch, found.fields["images"]), seconds, found.trace[0][1], found.objective)


class Breaching:
    """breaching in a process of its own, kept alive so that the sides can take turns."""

    def __init__(self, python: str, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [python, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def run(self, case: Case, observation: Observation, batch: Batch) -> Outcome:
        """breaching's attack. Raises: SystemExit when it died, or when its network is not ours."""
        path, result, model = (
            self.folder / "case.safetensors",
            self.folder / "result.safetensors",
            observation.task.model,
        )
        state = {f"weight.{number}": tensor for number, tensor in enumerate(model.state_dict().values())}
        with torch.no_grad():
            outputs = model(batch["images"])
        given = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD), "outputs": outputs}
        save_file({k: v.contiguous() for k, v in (state | dict(batch.fields) | given).items()}, path)
        reply = self._ask(
            case=str(path), result=str(result), model=case.peer,
            iterations=case.iterations, trials=case.restarts, seed=case.seed,
        )  # fmt: skip
        if reply["disagreement"] > AGREEMENT:
            raise SystemExit(f"{case.model}: breaching's outputs differ from ours by {reply['disagreement']:.1e}.")
        psnr = mean_psnr(observation, batch, load_file(result)["images"])
        return Outcome(psnr, reply["cpu_seconds"] / case.steps, reply["first"], reply["last"])

    def _ask(self, **request: object) -> dict[str, float]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f"{WORKER.name} ended early; run it with that interpreter by hand to see why.")
        return json.loads(line)

    def close(self) -> None:
        """Let the process end."""
        self.process.communicate()


def compare(case: Case, peer: Breaching | None, repetitions: int) -> tuple[list[Outcome], list[Outcome]]:
    """Both sides in turn, `repetitions` times, after a short run of each that is not counted."""
    observation, batch = observation_of(case)
    short = replace(case, iterations=2)
    sides = [(ours, []), *([(peer.run, [])] if peer else [])]
    for run, _ in sides:
        run(short, observation, batch)
    for number in range(repetitions):
        for run, outcomes in sides if number % 2 == 0 else reversed(sides):
            outcomes.append(run(replace(case, seed=case.seed + number), observation, batch))
    return sides[0][1], sides[1][1] if peer else []


def row(case: Case, mine: list[Outcome], theirs: list[Outcome]) -> str:
    """One line of the table."""

    def milliseconds(outcomes: list[Outcome]) -> str:
        return f"{1000 * statistics.median(o.seconds for o in outcomes):.2f}"

    def psnr(outcomes: list[Outcome]) -> str:
        return f"{statistics.mean(o.psnr for o in outcomes):.2f}"

    def objective(outcome: Outcome) -> str:
        return f"{outcome.first:.3f} → {outcome.last:.4f}"

    cells = [case.model, case.batch, case.iterations, case.restarts, psnr(mine)]
    if theirs:
        ratio = statistics.median(m.seconds / t.seconds for m, t in zip(mine, theirs))
        cells += [psnr(theirs), milliseconds(mine), milliseconds(theirs), f"**{ratio:.2f}**"]
        cells += [objective(mine[0]), objective(theirs[0])]
    else:
        cells += ["not run", milliseconds(mine), "not run", "", objective(mine[0]), "not run"]
    return "| " + " | ".join(map(str, cells)) + " |"


HEADER = """\
| model | batch | iterations | restarts | PSNR dB, ours | breaching \
| CPU ms per iteration and restart, ours | breaching | ratio | objective, ours | breaching |
|---|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="interpreter that has breaching; without it only our side runs")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="also 4000 iterations on LeNet")
    parser.add_argument("--total-variation", type=float, help="our weight instead of our default; breaching's is 0.2")
    parser.add_argument("--only", help="only the cases of this model: lenet, convnet or resnet")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        peer = Breaching(arguments.peer_python, Path(folder)) if arguments.peer_python else None
        if peer is None:
            print("breaching was not run: pass --peer-python.", file=sys.stderr)
        print(HEADER, flush=True)
        for case in CASES + (LONG if arguments.long else ()):
            if arguments.only not in (None, case.model):
                continue
            if arguments.total_variation is not None:
                case = replace(case, hyperparameters={"total_variation": arguments.total_variation})
            print(row(case, *compare(case, peer, arguments.repetitions)), flush=True)
        if peer:
            peer.close()


if __name__ == "__main__":
    main()
