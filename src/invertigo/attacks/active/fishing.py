"""Fishing: a crafted classifier silences every example but those of one class, or but one of that class."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.active.inversion import inverted
from invertigo.attacks.classifier import Classifier, find_classifier
from invertigo.attacks.registry import make, register
from invertigo.federation.functional import simulating
from invertigo.types import (
    AdversaryView,
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
    Update,
    buffers_of,
    check_requirements,
    trainable,
)

PAPER = Paper(
    "wen2022fishing",
    "Fishing for User Data in Large-Batch Federated Learning via Gradient Magnification",
    "Wen, Yuxin and Geiping, Jonas and Fowl, Liam and Goldblum, Micah and Goldstein, Tom",
    2022,
    "International Conference on Machine Learning",
    "2202.00580",
)
NEEDS = frozenset({Requirement.CRAFTED_MODEL, Requirement.BATCH_SIZE, Requirement.SINGLE_GRADIENT})


@register
@dataclass(frozen=True, kw_only=True)
class ClassFishing:
    r"""Only examples of one class send a gradient below the classifier.

    All rows of the classifier are zero but that of the target class, whose score stays far below the others:
    an example of another class moves rows that pass nothing down, one of the target class has $\delta = -1$ at the
    row that does. The bias gradient of the target class is $-n/B$, which tells how many there are; the gradient,
    multiplied by $B/n$, is theirs alone, and an ordinary attack inverts it.

    Args:
        target: the class to fish for; None draws one. A round without an example of it gives nothing.
        multiplier: size of the target row's weights. bias: score of all other classes, above the target's; from about
            12 on, examples of other classes are silent.
        residue: the part of their own weights that the other rows keep, which a client finds less odd than zeros; what
            it lets through of other examples blurs the gradient.
        attack: what inverts the gradient; `iterations` shortens it.

    Source: Wen et al. 2022, class fishing; the residue, and reading the number off the bias gradient, are ours.
    """

    name: ClassVar[str] = "class_fishing"
    paper: ClassVar[Paper] = PAPER
    requires: ClassVar[frozenset[Requirement]] = NEEDS
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    target: int | None = None
    multiplier: float = 0.5
    bias: float = 1000.0
    residue: float = 0.0
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
        head = _classifier(task, local)
        target = _target(self.target, len(head.module.weight), generator)
        weight, bias = _others_silent(head, target, self.bias)
        weight += self.residue * head.module.weight.detach()
        weight[target] = self.multiplier
        bias[target] = 0.0
        return _plant(self.name, head, weight, bias, target)

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`. Raises: RequirementError when no example of the class was in the batch."""
        return _invert(self, observation, generator, progress)


@register
@dataclass(frozen=True, kw_only=True)
class FeatureFishing:
    r"""Of the examples of one class, only those with a small value of one feature send a gradient.

    The target class's score is $m (f - v)$ for a feature $f$ that varies most over public data, the others' is zero.
    Examples of the class above $v$ fit perfectly and send nothing; $v$ is set where one of `num_examples` is expected
    below. It fishes in batches of one class, where class fishing catches everything at once.

    Args:
        target: the class of the batch; None draws one. multiplier: m.
        attack: what inverts the gradient; `iterations` shortens it.

    Source: Wen et al. 2022, feature fishing, in one round. The feature is chosen by its spread rather than by a test of
    normality.
    """

    name: ClassVar[str] = "feature_fishing"
    paper: ClassVar[Paper] = PAPER
    requires: ClassVar[frozenset[Requirement]] = NEEDS | {Requirement.PUBLIC_DATA}
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    target: int | None = None
    multiplier: float = 300.0
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
        if public is None:
            raise RequirementError("Feature fishing sets its threshold by public data; give data.public_count above 0.")
        head = _classifier(task, local)
        target = _target(self.target, len(head.module.weight), generator)
        alike = public.select(public[task.domain.target] == target) if task.domain.target in public.fields else public
        features = _features(task, head, alike if len(alike) > 3 else public, local.mode)
        chosen, threshold = _separating(features, min(0.5, 1 / num_examples))
        weight, bias = _others_silent(head, target, 0.0)
        factor = self.multiplier / max(features[:, chosen].std().item(), 1e-6)
        weight[target, chosen] = factor
        bias[target] = -factor * threshold
        return _plant(self.name, head, weight, bias, target)

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`. Raises: RequirementError when no example was caught."""
        return _invert(self, observation, generator, progress)


def _classifier(task: Task, local: LocalTraining) -> Classifier:
    parameters = trainable(task.model)
    blank = Update({name: torch.zeros_like(p) for name, p in parameters.items()}, local.sends)
    head = find_classifier(Observation(task, parameters, buffers_of(task.model), blank, local), parameters)
    if head.weight_name is None or head.bias_name is None:
        raise RequirementError("Fishing crafts the classifier, a linear layer with a bias; this model ends otherwise.")
    return head


def _target(wanted: int | None, classes: int, generator: torch.Generator) -> int:
    return int(torch.randint(classes, (), generator=generator)) if wanted is None else wanted


def _others_silent(head: Classifier, target: int, score: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros_like(head.module.weight)
    return weight, torch.full((len(weight),), score, dtype=weight.dtype, device=weight.device)


def _plant(name: str, head: Classifier, weight: Tensor, bias: Tensor, target: int) -> Plant:
    assert head.weight_name is not None
    assert head.bias_name is not None
    return Plant(name, {head.weight_name: weight, head.bias_name: bias}, memo={"target": torch.tensor(target)})


def _features(task: Task, head: Classifier, public: Batch, mode: str) -> Tensor:
    """(example, feature) inputs of the classifier."""
    seen: list[Tensor] = []
    handle = head.module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    try:
        with simulating(task.model, mode), torch.no_grad():
            task.model(public[task.domain.inputs].to(head.module.weight))
    finally:
        handle.remove()
    return seen[0].double().flatten(1)


def _separating(features: Tensor, share: float) -> tuple[int, float]:
    """The feature (example, feature) that varies most for its size, and the value that `share` of them stay below.

    Features that take the same value often (rectified ones are often zero) cannot be cut there.
    """
    ordered = features.sort(0).values
    below = min(max(round(share * len(ordered)), 1), len(ordered) - 1)
    gap, spread = ordered[below] - ordered[below - 1], features.std(0)
    varies = spread / (features.abs().mean(0) + 1e-12) * (gap > 1e-3 * spread) * (spread > 1e-6)
    chosen = int(varies.argmax())
    return chosen, float(ordered[below - 1 : below + 1, chosen].mean())


def _invert(
    attack: ClassFishing | FeatureFishing,
    observation: Observation,
    generator: torch.Generator,
    progress: Progress | None,
) -> Reconstruction:
    started = time.perf_counter()
    check_requirements(attack, observation)
    plant, size = observation.knowledge.plant, observation.num_examples
    assert plant is not None
    assert size is not None
    target = int(plant.memo["target"])
    weight, bias = (name for name in plant.state)
    caught = round(-float(observation.update.tensors[bias][target]) * size)
    if caught < 1:
        raise RequirementError(f"No example of class {target} took the bait in this round; fish for another class.")
    hidden = torch.zeros_like(observation.parameters[weight])
    hidden[target] = 1.0
    magnified = {name: tensor * (size / caught) for name, tensor in observation.update.tensors.items()}
    known = replace(
        observation.knowledge,
        num_examples=caught,
        labels=torch.full((caught,), target, device=hidden.device),
        view=AdversaryView(
            knows="only the caught examples reach the layers below the classifier",
            visible={weight: hidden, bias: (hidden[:, 0] > 0).to(hidden)},
        ),
    )
    alone = replace(observation, update=Update(magnified, "gradient"), knowledge=known)
    inner = make(attack.attack, iterations=attack.iterations, seconds=attack.seconds)
    note = f"{caught} of {size} examples of class {target} were caught, and inverted by {attack.attack}."
    return inverted(inner, alone, name=attack.name, note=note, started=started, generator=generator, progress=progress)
