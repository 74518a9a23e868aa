"""The easiest thing to rebuild: one high-contrast picture, from the gradient of a small smooth network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import skip_init

from invertigo.domains import Images
from invertigo.testing.contract import ContractError
from invertigo.types import Batch, Knowledge, Observation, Requirement

SIDE, CLASSES, HIDDEN = 16, 4, 32


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
    with torch.no_grad():
        for parameter in [*first.parameters(), *last.parameters()]:
            fan_in = SIDE * SIDE if parameter is first.weight or parameter is first.bias else HIDDEN
            parameter.uniform_(-1, 1, generator=generator).mul_((3 / fan_in) ** 0.5)
    return nn.Sequential(nn.Flatten(), first, nn.Sigmoid(), last)


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
