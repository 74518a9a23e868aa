"""What the guards cost, against one local epoch: 600 examples, a residual network of 18 layers, 32 x 32 pixels.

    python benchmarks/guard_cost.py                    # minutes on one core
    python benchmarks/guard_cost.py --examples 64      # an epoch timed on fewer examples and scaled up

CPU time of this process; one thread. The aim is under 5 % of an epoch for the gate before training without data, and
under 25 % for the gate before sending.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from invertigo import models
from invertigo.domains import Images
from invertigo.federation import train_locally
from invertigo.guards import Inspector, registry
from invertigo.types import Batch, History, Local, LocalTraining, Received, Task

EPOCH, BATCH = 600, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=EPOCH, help="trained on when timing the epoch")
    parser.add_argument("--probe", type=int, default=64)
    parser.add_argument("--norm", default="batch")
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = (3, 32, 32)
    model = models.build("resnet", input_shape=shape, num_classes=10, depth=18, norm=args.norm, generator=generator)
    task = Task(model, cross_entropy, Images(shape=shape), 10)
    count = max(args.examples, args.probe)
    batch = Batch(
        {
            "images": torch.rand(count, *shape, generator=generator),
            "labels": torch.randint(10, (count,), generator=generator),
        }
    )
    local = LocalTraining(sends="difference", learning_rate=0.01, batch_size=BATCH)
    trained = batch.select(slice(0, args.examples))
    train_locally(task, batch.select(slice(0, BATCH)), local)  # allocates what is allocated once
    started = time.process_time()
    update = train_locally(task, trained, local)
    epoch = (time.process_time() - started) * EPOCH / args.examples
    print(f"one epoch of {EPOCH} examples: {epoch:.1f} s CPU (timed on {args.examples})")

    received = Received(model.state_dict())
    own = Local(task=task, batch=batch, training=local, update=update)
    needless = tuple(registry[n]() for n in registry if not registry[n].needs)
    weights = replace(Inspector(guards=needless), examples=args.probe)
    parts = {
        "before loading": (weights, replace(own, batch=None, update=None), ("load",)),
        "before training, weights": (weights, replace(own, batch=None, update=None), ("train",)),
        "before training, with probe": (Inspector(examples=args.probe), replace(own, update=None), ("train",)),
        "before sending": (Inspector(examples=args.probe), own, ("send",)),
    }
    for name, (inspector, what, gates) in parts.items():
        started = time.process_time()
        inspector.inspect(received, History(), what, gates)
        spent = time.process_time() - started
        print(f"{name:<30}{spent:>7.2f} s  {spent / epoch:>6.1%} of an epoch")
    print(
        "'before sending' includes the probe's pass, which a client that also looked before training has made already"
    )


if __name__ == "__main__":
    main()
