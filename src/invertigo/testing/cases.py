"""The easiest thing to rebuild: one high-contrast picture, from the gradient of a small smooth network.

For a malicious server, it is several pictures from the gradient of a small rectified network that it planted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import skip_init

from invertigo.domains import Images
from invertigo.federation import observe
from invertigo.testing.contract import ContractError
from invertigo.types import Batch, Knowledge, LocalTraining, Observation, Plant, Requirement, Task

SIDE, CLASSES, HIDDEN, RECTIFIED = 16, 4, 32, 96


@dataclass(frozen=True)
class Case:
    """An observation and the private batch behind it. Make your own for a domain other than images."""

    observation: Observation
    truth: Batch


def easy_case(attack: Any, dtype: torch.dtype = torch.float64) -> Case:
    """One private picture (or graph) and its exact gradient; the adversary knows what `attack.requires`, no bit more.

    Raises: ContractError for an attack that reads neither images nor graphs.
    """
    if "images" not in attack.domains and "graphs" in attack.domains:
        from invertigo.testing.graph_cases import graph_case

        return graph_case(attack.requires, dtype)
    if "images" not in attack.domains:
        raise ContractError(
            f"Attack '{attack.name}' reads {', '.join(sorted(attack.domains))}; "
            "there are ready cases for images and graphs only, so pass case=Case(observation, truth) of your domain."
        )
    if Requirement.CRAFTED_MODEL in attack.requires:
        return planted_case(attack, dtype)
    generator = torch.Generator().manual_seed(1)
    model = _smooth_network(generator, dtype)
    truth = Batch({"images": pictures(1, dtype), "labels": torch.tensor([2])})
    observation = Observation.from_gradients(
        model,
        cross_entropy,
        _gradient(model, truth),
        domain=Images(shape=(1, SIDE, SIDE)),
        num_classes=CLASSES,
        knowledge=_knowledge(attack.requires, truth),
    )
    return Case(observation, truth)


@dataclass(frozen=True)
class Bait:
    """A client for a malicious server: what it would train honestly, and on what."""

    task: Task
    truth: Batch
    public: Batch
    local: LocalTraining = field(default_factory=LocalTraining)

    def plant(self, attack: Any, seed: int = 0) -> Plant:
        """What the attack plants for this client, who is alone."""
        return attack.plant(
            self.task,
            self.local,
            public=self.public,
            num_examples=len(self.truth),
            clients=1,
            generator=torch.Generator().manual_seed(seed),
        )


def bait(dtype: torch.dtype = torch.float64, *, one_class: bool = False) -> Bait:
    """Three pictures for a convolution, a hidden linear layer and a classifier, rectified; each of a class of its own,
    or all of class 1.
    """
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(
        _drawn(skip_init(nn.Conv2d, 1, 4, 3, stride=2, padding=1, dtype=dtype), 9, generator),
        nn.ReLU(),
        nn.Flatten(),
        _drawn(skip_init(nn.Linear, SIDE * SIDE, RECTIFIED, dtype=dtype), SIDE * SIDE, generator),
        nn.ReLU(),
        _drawn(skip_init(nn.Linear, RECTIFIED, CLASSES, dtype=dtype), RECTIFIED, generator),
    )
    task = Task(model, cross_entropy, Images(shape=(1, SIDE, SIDE)), num_classes=CLASSES)
    many = pictures(40, dtype)
    labels = torch.ones(3, dtype=torch.long) if one_class else torch.arange(3)
    truth = Batch({"images": many[:3], "labels": labels})
    return Bait(task, truth, Batch({"images": many[3:], "labels": torch.arange(37) % CLASSES}))


def planted_case(attack: Any, dtype: torch.dtype = torch.float64, *, one_class: bool = False) -> Case:
    """The update of a client (see `bait`) that was sent what `attack` plants."""
    client = bait(dtype, one_class=one_class)
    public = client.public if Requirement.PUBLIC_DATA in attack.requires else None
    plant = client.plant(attack)
    seen = observe(client.task, client.truth, client.local, level=5, plant=plant, public=public)
    return Case(seen, client.truth)


def _drawn(layer: nn.Module, fan_in: int, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-1, 1, generator=generator).mul_((3 / fan_in) ** 0.5)
    return layer


def pictures(n: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n 1 side side"]:
    """`n` different pictures of a bright disc with a dark half before a shaded ground, in [0, 1]."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIDE, dtype=torch.float64)] * 2, indexing="ij")
    drawn = []
    for i in range(n):
        left, up = 0.35 * torch.cos(torch.tensor(2.4 * i)), 0.35 * torch.sin(torch.tensor(2.4 * i))
        disc = torch.sigmoid(12 * (0.5 - ((x - left) ** 2 + (y - up) ** 2).sqrt()))
        drawn.append(0.15 + 0.1 * x + 0.7 * disc * (0.6 + 0.4 * torch.sign(x + y - left)))
    return torch.stack(drawn)[:, None].clamp(0, 1).to(dtype)


def _smooth_network(generator: torch.Generator, dtype: torch.dtype) -> nn.Module:
    """Weights from `generator` alone: constructing a case must not touch the global random state either."""
    first = skip_init(nn.Linear, SIDE * SIDE, HIDDEN, dtype=dtype)
    last = skip_init(nn.Linear, HIDDEN, CLASSES, dtype=dtype)
    _drawn(first, SIDE * SIDE, generator)
    return nn.Sequential(nn.Flatten(), first, nn.Sigmoid(), _drawn(last, HIDDEN, generator))


def _gradient(model: nn.Module, truth: Batch) -> Mapping[str, Tensor]:
    named = dict(model.named_parameters())
    loss = cross_entropy(model(truth["images"]), truth["labels"])
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()))))


def _knowledge(requires: frozenset[Requirement], truth: Batch) -> Knowledge:
    def given(requirement: Requirement, value: Any) -> Any:
        return value if requirement in requires else None

    images = truth["images"]
    return Knowledge(
        num_examples=given(Requirement.BATCH_SIZE, len(truth)),
        labels=given(Requirement.LABELS, truth["labels"]),
        batch_statistics=given(Requirement.BATCH_STATISTICS, {}),
        public=given(
            Requirement.PUBLIC_DATA,
            Batch({"images": pictures(9, images.dtype)[1:], "labels": torch.arange(8) % CLASSES}),
        ),
        fields=given(Requirement.NODE_COUNTS, {"present": torch.ones(len(truth), 1, dtype=torch.bool)}) or {},
    )
