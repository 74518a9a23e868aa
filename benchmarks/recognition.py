"""How often "recognisable" is wrong, by a rule that shares nothing with it: retrieval by a trained embedding.

    INVERTIGO_DATA=... python benchmarks/recognition.py                  # about eight minutes on one quiet core
    INVERTIGO_DATA=... python benchmarks/recognition.py --part develop   # the pictures that thresholds may be set on

Pictures are rebuilt by attacks (matching with short and long schedules, behind noise and pruning, batches of one and
four) and made by degrading (noise, blur, colour mosaics, fading, mixing, shifting, other examples). The embedding is a
small convolutional network trained on each data set by instance discrimination (InfoNCE over two mild augmentations).
A picture counts as recognised by the rule when its truth comes first among up to 1,000 decoys of its own class.

Our criterion reads a line-up of 100 pictures of any class, as an audit does, and knows nothing of the embedding.
False alarms: recognisable by the criterion, not by the rule, among the pictures that the rule does not recognise.
Misses: the reverse, among those that it does. Truths of `develop` and `report` are disjoint.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from invertigo import Images, data, defenses
from invertigo.attacks import registry as attacks
from invertigo.evaluation import evaluate, proportion
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, Task

SETS = {"cifar10": ("train", "test"), "mnist": ("test",), "pneumoniamnist": ("train", "test")}
DECOYS, LINEUP, TRUTHS = 1000, 100, 40
NAMES = ("develop", "report")


@dataclass(frozen=True)
class Pool:
    """All pictures of one set in [0, 1], with their classes and the embedding trained on them."""

    name: str
    images: Tensor
    labels: Tensor
    embed: nn.Module


@dataclass(frozen=True)
class Picture:
    """One rebuilt picture: how it came about, and what both rules say of it."""

    source: str
    kind: str
    rule: bool
    ours: bool
    scores: dict[str, float]


def embedding(channels: int) -> nn.Sequential:
    """A small convolutional network to 64 numbers."""
    widths, layers = (channels, 16, 32, 64), []
    for wide, narrow in zip(widths[1:], widths):
        layers += [nn.Conv2d(narrow, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 64))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """A mild change that leaves the picture plain to see: shift, contrast, brightness, noise, blur."""
    n = len(images)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator)

    shift = torch.randint(-3, 4, (2,), generator=generator).tolist()
    x = images.roll(shift, (-2, -1))
    if torch.rand((), generator=generator) < 0.5:
        x = blurred(x, float(0.3 + torch.rand((), generator=generator)))
    x = 0.5 + draw(0.4, 1.2) * (x - 0.5) + draw(-0.15, 0.15)
    return (x + draw(0, 0.15) * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def trained(images: Tensor, steps: int, generator: torch.Generator) -> nn.Module:
    """Instance discrimination: two augmentations of a picture are nearer to each other than to any other picture."""
    torch.manual_seed(0)
    net = embedding(images.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (64,), generator=generator)]
        left, right = (functional.normalize(net(augmented(batch, generator)), dim=1) for _ in range(2))
        logits = left @ right.T / 0.1
        loss = functional.cross_entropy(logits, torch.arange(len(batch)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels."""
    reach = max(1, math.ceil(2.5 * sigma))
    window = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=images.dtype) / sigma).square())
    window = (window / window.sum()).view(1, 1, 1, -1)
    planes = images.flatten(0, 1).unsqueeze(1)
    padded = functional.pad(planes, (reach, reach, reach, reach), mode="reflect")
    out = functional.conv2d(functional.conv2d(padded, window), window.transpose(-1, -2))
    return out.squeeze(1).unflatten(0, images.shape[:2])


def mosaic(images: Tensor, cells: int) -> Tensor:
    """Flat tiles of the mean colour."""
    small = functional.adaptive_avg_pool2d(images, cells)
    return functional.interpolate(small, images.shape[-2:], mode="nearest")


def degradations(pool: Pool, generator: torch.Generator) -> dict[str, Callable[[Tensor], Tensor]]:
    """Ways to spoil a picture, from hardly to beyond recognition."""

    def noisy(sigma: float) -> Callable[[Tensor], Tensor]:
        return lambda x: (x + sigma * torch.randn(x.shape, generator=generator)).clamp(0, 1)

    def others(x: Tensor) -> Tensor:
        return pool.images[torch.randint(len(pool.images), (len(x),), generator=generator)]

    made: dict[str, Callable[[Tensor], Tensor]] = {f"noise {s}": noisy(s) for s in (0.1, 0.2, 0.3, 0.5, 0.8)}
    made |= {f"blur {s}": lambda x, s=s: blurred(x, s) for s in (1.0, 2.0, 3.0, 5.0)}
    made |= {f"mosaic {c}": lambda x, c=c: mosaic(x, c) for c in (2, 3, 4, 6, 8)}
    made |= {f"mixed {w}": lambda x, w=w: w * x + (1 - w) * others(x) for w in (0.7, 0.5, 0.35)}
    made["faded"] = lambda x: 0.5 + 0.25 * (x - 0.5)
    made["shifted"] = lambda x: x.roll((2, -2), (-2, -1))
    made["faint in noise"] = lambda x: (0.5 + 0.3 * (x - 0.5) + 0.2 * torch.randn(x.shape, generator=generator)).clamp(
        0, 1
    )
    made["another example"] = others
    made["mean picture"] = lambda x: pool.images.mean(0).expand_as(x)
    return made


def rebuilt(pool: Pool, truths: Tensor, iterations: int, seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What attacks draw of these truths: (kind, indices, pictures)."""
    shape = tuple(pool.images.shape[1:])
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(shape[0], 12, 5, 2, 2), nn.Sigmoid(), nn.Conv2d(12, 12, 5, 2, 2), nn.Sigmoid(), nn.Flatten(),
        nn.LazyLinear(int(pool.labels.max()) + 1),
    ).eval()  # fmt: skip
    net(torch.zeros(1, *shape))
    relu = nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.AvgPool2d(4),
        nn.Flatten(), nn.LazyLinear(int(pool.labels.max()) + 1),
    ).eval()  # fmt: skip
    relu(torch.zeros(1, *shape))
    parts = list(truths.split([1, 4] * (len(truths) // 5)))
    for number, indices in enumerate(parts):
        model = (net, relu)[number % 4 // 2]
        task = Task(model, nn.CrossEntropyLoss(), Images(shape), int(pool.labels.max()) + 1)
        batch = Batch({"images": pool.images[indices], "labels": pool.labels[indices]})
        for noise in (0.0, 3e-4, 3e-3):
            seen = observe(
                task, batch, LocalTraining(mode="eval"), level=2, generator=torch.Generator().manual_seed(number),
                defense=defenses.make("gaussian_noise", std=noise) if noise else None,
            )  # fmt: skip
            attack = attacks.make("inverting_gradients", iterations=iterations, restarts=1)
            found = attack.reconstruct(seen, generator=torch.Generator().manual_seed(number))
            kind = f"{'sigmoid' if model is net else 'ReLU'} B={len(indices)} noise {noise:g}"
            yield kind, indices, found.fields["images"].detach()


def retrieved(pool: Pool, indices: Tensor, pictures: Tensor) -> list[bool]:
    """The rule: the truth comes first among decoys of its class."""
    with torch.no_grad():
        everything = functional.normalize(torch.cat([pool.embed(part) for part in pool.images.split(512)]), dim=1)
        found = functional.normalize(pool.embed(pictures.float()), dim=1)
    hits = []
    for index, vector in zip(indices.tolist(), found):
        rivals = (pool.labels == pool.labels[index]).nonzero().flatten()
        rivals = rivals[rivals != index][:DECOYS]
        hits.append(bool(vector @ everything[index] > (everything[rivals] @ vector).max()))
    return hits


def judged(pool: Pool, indices: Tensor, pictures: Tensor, kind: str, lineup: Batch) -> Iterator[Picture]:
    """Both rules on one reconstruction."""
    domain = Images(tuple(pool.images.shape[1:]))
    truth = Batch({"images": pool.images[indices], "labels": pool.labels[indices]})
    found = evaluate({"images": pictures}, truth, domain=domain, public=lineup, decoys=lineup)
    order = found.scores.matching.clamp_min(0)
    for i, hit in enumerate(retrieved(pool, indices, pictures[order])):
        scores = {name: float(values[i]) for name, values in found.scores.per_example.items()}
        rank = -1 if found.identification is None else int(found.identification.ranks[i])
        yield Picture(pool.name, kind, hit, found.outcomes[i] != "nothing", scores | {"rank": rank})


def pictures(name: str, part: str, iterations: int, steps: int) -> Iterator[Picture]:
    """All pictures of one set."""
    generator = torch.Generator().manual_seed(1)
    loaded = [data.load(name, split=split) for split in SETS[name]]
    images, labels = (torch.cat([getattr(one, what) for one in loaded]) for what in ("images", "labels"))
    order = torch.randperm(len(images), generator=generator)
    truths = order[: 2 * TRUTHS].split(TRUTHS)[NAMES.index(part)]
    rest = order[2 * TRUTHS :]
    pool = Pool(name, images, labels, trained(images[rest], steps, generator))
    lineup = Batch({"images": images[rest[:LINEUP]], "labels": labels[rest[:LINEUP]]})
    for kind, spoil in degradations(pool, generator).items():
        chosen = truths[torch.randperm(TRUTHS, generator=generator)[:10]]
        yield from judged(pool, chosen, spoil(images[chosen]), kind, lineup)
    for kind, indices, found in rebuilt(pool, truths, iterations, seed=NAMES.index(part)):
        yield from judged(pool, indices, found, kind, lineup)


def report(found: list[Picture]) -> None:
    """Error rates with 95 % intervals, over all and by set."""
    for name in ("all", *SETS):
        chosen = [p for p in found if name in ("all", p.source)]
        unseen, seen = [p for p in chosen if not p.rule], [p for p in chosen if p.rule]
        if unseen and seen:
            alarm = proportion(sum(p.ours for p in unseen), len(unseen))
            miss = proportion(sum(not p.ours for p in seen), len(seen))
            print(
                f"{name:<15} {len(chosen):>5} pictures   false alarms {alarm.estimate:.3f} "
                f"({alarm.low:.3f} to {alarm.high:.3f}) of {len(unseen)}   misses {miss.estimate:.3f} "
                f"({miss.low:.3f} to {miss.high:.3f}) of {len(seen)}"
            )


def main() -> None:
    """Print the table, and each kind of picture with what both rules say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=NAMES, default="report")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--steps", type=int, default=600, help="training steps of each embedding")
    parser.add_argument("--save", help="write all pictures' scores to this JSON file")
    arguments = parser.parse_args()
    found = []
    for name in SETS:
        found += pictures(name, arguments.part, arguments.iterations, arguments.steps)
        print(f"{name}: {len(found)} pictures", flush=True)
    if arguments.save:
        Path(arguments.save).write_text(json.dumps([asdict(p) for p in found]))
    for kind in dict.fromkeys((p.source, p.kind) for p in found):
        chosen = [p for p in found if (p.source, p.kind) == kind]
        rule, ours = (sum(getattr(p, which) for p in chosen) for which in ("rule", "ours"))
        print(f"{kind[0]:<15} {kind[1]:<28} {len(chosen):>3}  by the rule {rule:>3}  by the criterion {ours:>3}")
    report(found)


if __name__ == "__main__":
    main()
