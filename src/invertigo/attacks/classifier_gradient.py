"""The gradient of a classifier, as label recovery reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from invertigo.attacks.classifier import Classifier, logit_gradients
from invertigo.attacks.dry_run import ERRORS
from invertigo.attacks.reduction import Reduction, reduction_of
from invertigo.attacks.targets import float_targets
from invertigo.types import LocalTraining, Observation, RequirementError


@dataclass(frozen=True)
class ClassifierGradient:
    """The classifier's part of an update, and the scores and loss derivatives of examples with given features."""

    observation: Observation
    classifier: Classifier
    parameters: dict[str, Tensor]
    gradients: dict[str, Tensor]
    scale: float = 1.0
    """Makes a mean of what the update holds as a sum over examples."""

    @property
    def classes(self) -> int:
        """Number of outputs of the classifier: one a class, or a single one for yes or no."""
        return self.classifier.logits.shape[1]

    @property
    def weight_gradient(self) -> Tensor | None:
        """(class, feature), or None where the classifier's weight is not in the update."""
        name = self.classifier.weight_name
        return None if name is None else self.scale * self.gradients[name].double()

    @property
    def bias_gradient(self) -> Tensor | None:
        """(class,), or None without a bias."""
        name = self.classifier.bias_name
        return None if name is None else self.scale * self.gradients[name].double()

    def logits(self, features: Tensor) -> Tensor:
        """(row, class) scores of features (row, feature)."""
        scores = features @ self._own(self.classifier.module.weight).T
        bias = self.classifier.module.bias
        return scores if bias is None else scores + self._own(bias)

    def directions(self, logits: Tensor) -> Tensor:
        """(label, output) D_k: derivative of an example's own loss by the logits, for target k and `logits[k]`.

        Zeros for a target that the loss ignores.

        Raises: RequirementError when the loss does not take these targets.
        """
        shares = self.reduction.shares(torch.arange(len(self.targets)))[:, None].to(logits.device)
        rows = self._gradients(logits, self.targets).double() / shares.clamp_min(1e-300)
        return torch.where(shares > 0, rows, 0.0)

    @cached_property
    def targets(self) -> Tensor:
        """(label, ...) the targets that an example can have: class numbers, or 0 and 1 of a single output."""
        like = self.classifier.logits
        if self.classes > 1:
            return torch.arange(self.classes, device=like.device)
        form = float_targets(self.observation)
        choices = form.choices(like) if form is not None else None
        if choices is None:
            raise RequirementError(
                "Labels cannot be read from this update: the model has one output, and its target is no yes or no. "
                "Give the labels in Knowledge, or use an attack that optimises them."
            )
        return choices

    @cached_property
    def reduction(self) -> Reduction:
        """How the loss weighs the examples of a batch."""
        logits, targets = self.classifier.logits.mean(0), self.targets

        def gradients(numbers: Tensor) -> Tensor:
            rows = logits.expand(len(numbers), -1)
            return self._gradients(rows, targets[numbers.to(targets.device)], "eval").double().cpu()

        return reduction_of(gradients, len(targets))

    def _gradients(self, logits: Tensor, targets: Tensor, mode: str | None = None) -> Tensor:
        rows = logits.to(self.classifier.logits)
        try:
            return logit_gradients(self.observation, self.classifier, self.parameters, rows, targets, mode=mode)
        except ERRORS as error:
            raise RequirementError(
                f"Labels cannot be read from this update: the loss does not take class numbers ({error}). Give the "
                "labels in Knowledge, or use an attack that optimises them."
            ) from error

    def strength(self) -> Tensor:
        """(class,) size of each class's entry of the bias gradient, or of its row of the weight gradient."""
        bias, weight = self.bias_gradient, self.weight_gradient
        if bias is not None and (weight is None or bool(bias.any())):
            return bias.abs()
        assert weight is not None
        return weight.norm(dim=1)

    def rank(self) -> int:
        """Numerical rank of the weight gradient: every example adds at most one to it."""
        weight = self.weight_gradient
        if weight is None:
            return 1
        values = torch.linalg.svdvals(weight)
        threshold = 100 * torch.finfo(self.classifier.logits.dtype).eps * values[0]
        threshold = max(float(threshold), self._largest_of_noise(weight))
        return max(int((values > threshold).sum()), 1)

    def _largest_of_noise(self, weight: Tensor) -> float:
        """About the largest singular value of noise alone (Bai and Yin), where the adversary knows its size."""
        view, name = self.observation.knowledge.view, self.classifier.weight_name
        if view is None or not view.noise_std or self.observation.update.kind != "gradient":
            return 0.0
        return 1.1 * view.noise_std.get(str(name), 0.0) * sum(side**0.5 for side in weight.shape)

    def _own(self, tensor: Tensor) -> Tensor:
        named = {id(p): n for n, p in self.observation.task.model.named_parameters()}
        return self.parameters.get(named[id(tensor)], tensor).detach().double()


def mean_gradients(observation: Observation) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The mean gradient over the local steps, and the parameters halfway through them."""
    sent = observation.update.tensors
    if observation.update.kind == "gradient":
        return dict(sent), dict(observation.parameters)
    scale = observation.local.learning_rate * _weight_of_steps(observation.local, observation.num_examples)
    halfway = {name: p + sent[name] / 2 for name, p in observation.parameters.items()}
    return {name: -tensor / scale for name, tensor in sent.items()}, halfway


def _weight_of_steps(local: LocalTraining, num_examples: int | None) -> float:
    """How often the mean gradient is added up: once a step, and more with momentum."""
    if num_examples is None and local.batch_size is not None:
        raise RequirementError(
            "Labels cannot be read from this update: without the number of examples, the number of local steps is "
            "unknown. Give Knowledge(num_examples=...)."
        )
    steps = len(local.steps(num_examples or 1))
    return sum((1 - local.momentum ** (steps - t)) / (1 - local.momentum) for t in range(steps))
