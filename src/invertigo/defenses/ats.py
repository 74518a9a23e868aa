"""ATS: train on images after a fixed policy of picture operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from invertigo.defenses.ats_search import Search, Watch, search_policies
from invertigo.defenses.registry import register
from invertigo.defenses.transformation_policy import Policy, Variant, apply
from invertigo.types import AdversaryView, Batch, Defense, InvalidValueError, Observation, Paper, Step, Task

CHOICE = "transformation"
"""Field of an informed adversary's candidate: for each example, logits of the variants it may have been put through."""


@register
@dataclass(frozen=True, kw_only=True)
class ATS(Defense):
    r"""Train on $\tilde x_i = T_{v_i}(x_i)$, where $v_i$ draws one of the policy's sequences and the signs in it.

    A policy such as `3-1-7+43-18-18` names operations of a public table of fifty (`transformation_policy.TABLE`):
    sequences joined by `+`, of which every example draws one; sizes are fixed, signs are drawn. Each operation is
    always applied, as in the authors' code, which holds probabilities and ignores them.

    Args:
        policy: the default is what the authors' search found for CIFAR-100; `search` looks for one on other data.
        operations: so many of each sequence are applied, from the first on.

    Operations are plain PyTorch (`picture_operations`) and follow the authors' up to interpolation and rounding to 8
    bits.

    Source: Gao et al. (2021), and the table in the authors' code. The informed attacker knows the policy, and
    optimises which variant each image went through together with the image.
    """

    name: ClassVar[str] = "ats"
    paper: ClassVar[Paper] = Paper(
        "gao2021privacy",
        "Privacy-preserving Collaborative Learning with Automatic Transformation Search",
        "Gao, Wei and Guo, Shangwei and Zhang, Tianwei and Qiu, Han and Wen, Yonggang and Liu, Yang",
        2021,
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition",
        "2011.12505",
    )
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "operations"
    strengths: ClassVar[tuple[float, ...]] = (1, 2, 3)

    policy: str = "3-1-7+43-18-18"
    operations: int = 3

    def __post_init__(self) -> None:
        if self.operations < 1:
            raise InvalidValueError(
                f"ats.operations is {self.operations}; without an operation images are trained on as they are. The "
                "authors search for sequences of up to 3."
            )
        self.sequences()

    def sequences(self) -> list[list[Variant]]:
        """For each sequence of the policy, cut to `operations`, all that its random signs can make of it."""
        return self._applied().variants()

    def _applied(self) -> Policy:
        return Policy.parse(self.policy).first(self.operations)

    def search(
        self,
        task: Task,
        public: Batch,
        settings: Search | None = None,
        *,
        generator: torch.Generator,
        untrained: nn.Module | None = None,
        file: Path | None = None,
        watch: Watch | None = None,
    ) -> ATS:
        """This defense with the policy that `ats_search.search_policies` finds on public examples.

        Raises: ConfigurationError where no policy is accurate enough; CorruptFileError for a file of another search.
        """
        settings = settings or Search(operations=self.operations)
        found = search_policies(
            task, public, settings, generator=generator, untrained=untrained, file=file, watch=watch
        )  # fmt: skip
        return replace(self, policy=found.policy(), operations=settings.operations)

    def on_batch(self, batch: Batch, step: Step) -> Batch:
        """The transformed batch."""
        return Batch(self._transformed(batch.fields, step.task, step.generator))

    def _transformed(self, fields: Mapping[str, Tensor], task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        images = fields[task.domain.inputs]
        unit, back = _unit_range(task, images)
        return {**fields, task.domain.inputs: back(self._applied().applied(unit(images), generator))}

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Look for the variant of each image together with the image."""
        task, count = observation.task, observation.num_examples
        variants = list(dict.fromkeys(v for sequence in self.sequences() for v in sequence))
        inputs = task.domain.inputs

        def transform(fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
            named = dict(fields)
            logits, images = named.pop(CHOICE, None), named[inputs]
            if logits is None or len(logits) != len(images):
                return named
            unit, back = _unit_range(task, images)
            made = torch.stack([apply(variant, unit(images)) for variant in variants])
            return {**named, inputs: back(torch.einsum("iv,vichw->ichw", logits.softmax(-1), made))}

        return AdversaryView(
            knows=f"The adversary knows the policy {self.policy} and optimises which of its {len(variants)} variants "
            "each image went through together with the images.",
            unknowns={CHOICE: (count, len(variants))} if count else None,
            transform=transform,
            draw=lambda fields, generator: self._transformed(fields, task, generator),
        )


def _unit_range(task: Task, images: Tensor) -> tuple[Any, Any]:
    """From what the model reads to pixels in [0, 1], and back."""
    low, high = (bound.to(images) for bound in task.domain.bounds(task.domain.inputs))
    return (lambda x: (x - low) / (high - low)), (lambda pixels: low + pixels * (high - low))
