"""Geminio: a head trained so that the loss, and with it the gradient, is the examples' the adversary asks for."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.attacks.active.inversion import inverted
from invertigo.attacks.registry import make, register
from invertigo.federation.functional import simulating
from invertigo.models.descent import shuffled
from invertigo.types import (
    Batch,
    LocalTraining,
    Observation,
    Paper,
    Plant,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    Task,
    check_requirements,
    duplicate,
)


@register
@dataclass(frozen=True, kw_only=True)
class Geminio:
    r"""Train the linear layers on public data so that examples of the wanted class make up nearly all of the loss.

    $\min \sum_i \frac{\ell_i}{\sum_j \ell_j} (1 - p_i)$, where $\ell_i$ is the cross-entropy of example $i$ and $p$
    says what is wanted: 1 spread over the examples of the class in the public batch, 0 for others. No weight has an odd
    structure; the gradient of a mixed batch is that of the wanted examples all the same, and an ordinary attack inverts
    it. How many those are is guessed from the class's share of the public data.

    Args:
        target: the class that is wanted; None draws one.
        epochs: over the public data, in batches of 16. learning_rate: Adam's.
        attack: what inverts the gradient; `iterations` shortens it.

    Source: Shan et al. 2025. They ask in words and weigh examples by a vision-language model; class membership takes
    its place here, so that nothing needs to be downloaded. Five epochs over ImageNet's validation set are more than the
    30 here over a small public set, where the paper's learning rate of 0.001 leaves wanted examples less than half of
    the gradient.
    """

    name: ClassVar[str] = "geminio"
    paper: ClassVar[Paper] = Paper(
        "shan2025geminio",
        "Geminio: Language-Guided Gradient Inversion Attacks in Federated Learning",
        "Shan, Junjie and Zhao, Ziqi and Lu, Jialin and Zhang, Rui and Yiu, Siu Ming and Chow, Ka-Ho",
        2025,
        "IEEE/CVF International Conference on Computer Vision",
        "2411.14937",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset(
        {Requirement.CRAFTED_MODEL, Requirement.BATCH_SIZE, Requirement.PUBLIC_DATA, Requirement.SINGLE_GRADIENT}
    )
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    target: int | None = None
    epochs: int = 30
    learning_rate: float = 1e-2
    attack: str = "inverting_gradients"
    iterations: int = 4800
    seconds: float | None = None

    def plant(
        self,
        task: Task,
        local: LocalTraining,
        *,
        public: Batch | None,
        num_examples: int,
        clients: int,
        generator: torch.Generator,
    ) -> Plant:
        """See `types.ActiveAttack`."""
        if public is None or task.domain.target not in public.fields:
            raise RequirementError("Geminio trains on labelled public data; give data.public_count above 0.")
        labels = public[task.domain.target]
        target = self.target
        if target is None:
            target = int(labels[torch.randint(len(labels), (), generator=generator)])
        if not bool((labels == target).any()):
            raise RequirementError(f"No public example is of class {target}, so the head cannot learn to favour it.")
        model = duplicate(task.model)
        head = _linear(model)
        if not head:
            raise RequirementError("Geminio trains the linear layers at a model's end; this model has none.")
        with simulating(model, local.mode), torch.enable_grad():
            self._fit(model, head, public[task.domain.inputs], labels, target, generator)
        state = {name: parameter.detach().clone() for name, parameter in head.items()}
        share = (labels == target).double().mean()
        return Plant(self.name, state, memo={"target": torch.tensor(target), "share": share})

    def _fit(
        self,
        model: nn.Module,
        head: dict[str, nn.Parameter],
        images: Tensor,
        labels: Tensor,
        target: int,
        generator: torch.Generator,
    ) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)
        optimiser = torch.optim.Adam(head.values(), self.learning_rate)
        images = images.to(next(iter(head.values())))
        for _ in range(self.epochs):
            for part in shuffled(len(images), 16, generator):
                wanted = labels[part] == target
                if not bool(wanted.any()) or bool(wanted.all()):
                    continue
                each = F.cross_entropy(model(images[part]), labels[part], reduction="none") + 1e-8
                loss = (each / each.sum() * (1 - wanted / wanted.sum())).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        started = time.perf_counter()
        check_requirements(self, observation)
        plant, size = observation.knowledge.plant, observation.num_examples
        assert plant is not None
        assert size is not None
        target = int(plant.memo["target"])
        expected = max(1, round(float(plant.memo["share"]) * size))
        known = replace(
            observation.knowledge,
            num_examples=expected,
            labels=torch.full((expected,), target, device=next(iter(observation.parameters.values())).device),
        )
        inner = make(self.attack, iterations=self.iterations, seconds=self.seconds)
        note = f"{expected} of {size} examples were expected to be of class {target}, and inverted by {self.attack}."
        alone = replace(observation, knowledge=known)
        return inverted(
            inner, alone, name=self.name, note=note, started=started, generator=generator, progress=progress
        )


def _linear(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of all linear layers."""
    return {
        f"{name}.{kind}": parameter
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        for kind, parameter in module.named_parameters(recurse=False)
    }
