"""The mean image of every class, out of a classifier that reads raw pixels and expects none of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from invertigo.attacks.active.passage import find_passage
from invertigo.attacks.exact.layer_gradients import layer_gradients
from invertigo.attacks.registry import register
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
)


@register
@dataclass(frozen=True, kw_only=True)
class ClassMeans:
    r"""Every row of the classifier sends the mean of its class's images: $x_c = g_{W,c} / g_{b,c}$.

    The layers before the classifier copy the pixels to it, as many as fit. Its weights are zero and one class has a
    score far above all others, so that the softmax gives those nothing: $\delta_c = -1$ for the examples of class $c$
    and 0 for the rest. The image is exact for a class that occurs once in the batch. Examples of the favoured class
    stay hidden.

    Args:
        favoured: the class with the high score; the last one by default. score: how high.

    Source: Wang et al. 2024 (MKOR) has this read-out; the zero classifier with a favoured class is our construction.
    """

    name: ClassVar[str] = "class_means"
    paper: ClassVar[Paper] = Paper(
        "wang2024maximum",
        "Maximum Knowledge Orthogonality Reconstruction with Gradients in Federated Learning",
        "Wang, Feng and Velipasalar, Senem and Gursoy, M. Cenk",
        2024,
        "IEEE/CVF Winter Conference on Applications of Computer Vision",
        "2310.19222",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.CRAFTED_MODEL, Requirement.SINGLE_GRADIENT})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    favoured: int = -1
    score: float = 100.0

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
        passage = find_passage(task, local.mode, to_classifier=True)
        module = passage.layer.module
        bias = torch.zeros_like(module.bias)
        bias[self.favoured] = self.score
        state = {passage.layer.weight_name: torch.zeros_like(module.weight), passage.bias: bias}
        return Plant(self.name, {**passage.state, **state})

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        started = time.perf_counter()
        check_requirements(self, observation)
        passage = find_passage(observation.task, observation.local.mode, to_classifier=True)
        rows = layer_gradients(observation, passage.layer)
        present = (rows.bias < -1e-6 * rows.bias.abs().max()).nonzero()[:, 0]
        if not len(present):
            raise RequirementError("Every example belongs to the favoured class, whose row tells nothing.")
        images = passage.layer.images(rows.weight[present] / rows.bias[present, None])
        domain = observation.task.domain
        like = observation.update.tensors[passage.bias]
        note = f"{len(present)} classes gave their mean image, with {passage.layer.arriving:.0%} of the pixels."
        return Reconstruction(
            fields={domain.inputs: images.to(like.dtype), domain.target: present},
            attack=self.name,
            objective=0.0,
            stopped="exact",
            seconds=time.perf_counter() - started,
            labels_inferred=True,
            notes=(note,),
        )
