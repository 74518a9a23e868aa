"""What leaves a client under the guard's default policy, against servers that have read the guard's code.

    python benchmarks/red_team.py                         # 20 families, 4 rounds each; some CPU minutes
    python benchmarks/red_team.py --only imprint --rounds 2 --seed 5

A small federation of digits is trained honestly for each kind of network; in every round one client is also sent the
crafted model instead, and returns one gradient of 64 examples. Its guard has the memory of that client's own rounds.
What is blocked does not leave; what passes leaves repaired (`GuardVerdict.repaired`). The server then reads every row,
the combinations that it planned, and what peeling uncovers from these; an example counts as read where a reading comes
within 40 dB of what the rows read of it. Peeling is granted the truth: it subtracts what was read without a fault.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass, replace
from statistics import median

import torch
from red_team_families import BATCH, FAMILIES, Family, Rows
from red_team_models import CLASSES, build
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from invertigo import data
from invertigo.domains import Images
from invertigo.federation import train_locally
from invertigo.guards import Inspector, Isolation, Unlooked
from invertigo.guards.simulation import Federation, Setting, federation
from invertigo.types import Batch, GuardVerdict, History, Local, LocalTraining, Received, Task, Update

GRADIENT = LocalTraining()
DECIBELS = 40.0


@dataclass(frozen=True)
class Outcome:
    """Examples' worth that leaves: without a guard, past its send gate alone, by default, and in an honest round."""

    bare: float
    gate: float
    left: float
    honest: float
    decision: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--seed", type=int, default=400)
    parser.add_argument("--only", default="", help="families whose name holds this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    print(f"{'family':<34}{'no guard':>9}{'gate':>7}{'default':>9}{'honest':>8}  decisions (median of {args.rounds})")
    for family in (one for one in FAMILIES if args.only in one.name):
        found = campaign(family, args)
        told = [median(getattr(o, name) for o in found) for name in ("bare", "gate", "left", "honest")]
        decisions = "".join(o.decision[0] for o in found)
        mark = "*" if family.after else " "
        worst = max(o.left - o.honest for o in found)
        print(
            f"{family.name + mark:<34}{told[0]:>9.1f}{told[1]:>7.1f}{told[2]:>9.1f}{told[3]:>8.1f}  {decisions}  "
            f"worst {worst:+.1f}",
            flush=True,
        )
    print(f"* made after the rules were fixed. p, w, b: passed, warned, blocked. {time.process_time() - started:.0f} s")


def campaign(family: Family, args: argparse.Namespace) -> list[Outcome]:
    """Every round of one federation, for one client."""
    world = made(family.stage, args)
    history, found = History(), []
    for turn in world.rounds():
        task, batch = world.on(turn.state), world.probe(0)
        generator = torch.Generator().manual_seed(args.seed + turn.number)
        crafted = crafted_task(family, task, world.public, generator, turn.number)
        honest, _, _ = looked(task, batch, world.task, history, turn.number, ())
        bare, _, _ = looked(crafted.task, batch, world.task, history, turn.number, crafted.reads)
        _, verdict, (gate, left) = looked(crafted.task, batch, world.task, history, turn.number, crafted.reads, bare)
        found.append(Outcome(bare, gate, left, honest, verdict.decision))
        _, kept, _ = looked(task, batch, world.task, history, turn.number, (), honest)
        history = history.add(kept)
    return found


@dataclass(frozen=True)
class Crafted:
    """What the server sends, and the combinations that it reads."""

    task: Task
    reads: tuple


def made(stage: str, args: argparse.Namespace) -> Federation:
    digits = data.load("digits")
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(args.seed))
    task = Task(build(stage, args.rows, args.seed), cross_entropy, Images(digits.shape), CLASSES)
    training = LocalTraining(sends="difference", learning_rate=0.2, epochs=1, batch_size=32)
    setting = Setting(clients=4, rounds=args.rounds, training=training, probe=BATCH, seed=args.seed)
    return federation(task, digits.batch(order[:1400]), setting)


def crafted_task(family: Family, task: Task, public: Batch, generator: torch.Generator, turn: int) -> Crafted:
    model: nn.Module = copy.deepcopy(task.model)
    with torch.no_grad():
        seen = model.features(public["images"]).double()  # type: ignore[operator]
        w, b, head = (p.detach().double().clone() for p in (model.w, model.b, model.head.weight))  # type: ignore
    rows = family.craft(Rows(w, b, head, []), seen, generator, turn)
    with torch.no_grad():
        for parameter, value in ((model.w, rows.weight), (model.b, rows.bias), (model.head.weight, rows.head)):  # type: ignore
            parameter.copy_(value)
    return Crafted(replace(task, model=model), tuple(rows.read))


def looked(
    sent: Task, batch: Batch, own: Task, history: History, turn: int, reads: tuple, bare: float | None = None
) -> tuple[float, GuardVerdict, tuple[float, float]]:
    """What is read of the plain update, the default guard's verdict, and what leaves past the gate and by default."""
    update = train_locally(sent, batch, GRADIENT)
    nothing = GuardVerdict("pass")
    if bare is None:
        return read(sent, batch, update, reads), nothing, (0.0, 0.0)
    local = Local(task=own, batch=batch, training=GRADIENT, update=update, round=turn)
    received = Received({n: t.detach() for n, t in sent.model.state_dict().items()})
    alone = Inspector(guards=(Isolation(), Unlooked())).inspect(received, history, local, ("send",))
    whole = Inspector().inspect(received, history, local)
    counts = [0.0 if v.decision == "block" else read(sent, batch, v.repaired(update), reads) for v in (alone, whole)]
    return bare, whole, (counts[0], counts[1])


def read(task: Task, batch: Batch, update: Update, reads: tuple) -> float:
    """Examples' worth of features that rows, planned combinations and peeling show to 40 dB."""
    model: nn.Module = task.model
    with torch.no_grad():
        truth = model.features(batch["images"]).double()  # type: ignore[operator]
    slopes = own_slopes(task, batch)
    weight, bias = update.tensors["w"].double(), update.tensors["b"].double()
    combine = torch.zeros(len(weight) + len(reads), len(weight), dtype=torch.float64)
    combine[: len(weight)] = torch.eye(len(weight))
    for i, (rows, factors) in enumerate(reads):
        combine[len(weight) + i, rows] = torch.tensor(factors, dtype=torch.float64)
    left, shift, known = combine @ weight, combine @ bias, torch.zeros(len(truth), dtype=torch.bool)
    while True:
        ratio = (left / shift[:, None]).nan_to_num(1e6, 1e6, -1e6)
        error = torch.cdist(ratio, truth, compute_mode="donot_use_mm_for_euclid_dist").square() / truth.shape[1]
        span = float(truth.max() - truth.min()) ** 2
        fresh = (error <= span * 10 ** (-DECIBELS / 10)).any(0) & ~known
        if not bool(fresh.any()):
            return float(known.sum()) * BATCH / len(truth)
        known |= fresh
        part = (combine @ slopes[fresh].T) / BATCH
        gone = (update.tensors["w"] == 0).all(1) & (update.tensors["b"] == 0)
        part = torch.where(combine[:, gone].abs().sum(1, keepdim=True) > 0, 0.0, part)
        left, shift = left - part @ truth[fresh], shift - part.sum(1)


def own_slopes(task: Task, batch: Batch) -> Tensor:
    """(unit, row) what each unit adds to the rows' biases, times the batch size."""
    model: nn.Module = task.model
    with torch.no_grad():
        features = model.features(batch["images"])  # type: ignore[operator]
        head = model.head.weight  # type: ignore[union-attr]
        slope = getattr(model, "slope", 0.0)
        fires = torch.where(features @ model.w.T + model.b > 0, 1.0, slope).double()  # type: ignore[operator]
        errors = (model(batch["images"]).softmax(1) - torch.eye(CLASSES)[batch["labels"]]).double()
        units = len(features) // len(errors)
        return fires * (errors.repeat_interleave(units, 0) @ head.double()) / units


if __name__ == "__main__":
    main()
