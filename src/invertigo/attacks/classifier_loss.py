"""What a classification loss allows its gradient to be: how true gradients are told from made-up ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.attacks.classifier import find_classifier
from invertigo.attacks.classifier_gradient import ClassifierGradient, mean_gradients
from invertigo.attacks.labels import fit_shares
from invertigo.types import Observation, RequirementError, Update

TOLERANCE = 1e-4
"""Share of a gradient that may lie where the loss allows none; rounding in float32 leaves about 1e-6."""
EXPLAINED = 0.5
"""Relative distance up to which counts of labels, at the scores of grey noise, explain a bias gradient."""


@dataclass(frozen=True)
class ClassifierLoss:
    r"""The derivatives $D = \partial\ell/\partial z$ by the class scores that the loss of a classifier can have.

    `forbidden` (direction, class) spans the directions that every $D$ is orthogonal to: for cross-entropy the one of
    all ones, as $\mathrm{softmax}(z) - e_y$ sums to 0. So do all sums of derivatives, and with them the classifier's
    bias gradient and every column of its weight gradient, for any batch and any number of local steps.
    """

    reader: ClassifierGradient
    forbidden: Tensor

    @classmethod
    def of(cls, observation: Observation) -> ClassifierLoss | None:
        """The loss behind an observation; None where its classifier is not found or not in the update.

        The classifier is found by a dry run on images of noise, so models that read anything else have none.
        """
        domain = observation.task.domain
        if tuple(getattr(domain, "reads", (domain.inputs,))) != (domain.inputs,):
            return None
        try:
            gradients, _ = mean_gradients(observation)
            parameters = dict(observation.parameters)  # not halfway: the update may be a made-up one
            classifier = find_classifier(observation, parameters)
            reader = ClassifierGradient(observation, classifier, parameters, gradients)
            return cls(reader, _forbidden(reader))
        except RequirementError:
            return None

    @property
    def bias_name(self) -> str | None:
        """Name of the classifier's bias, None where the update holds none."""
        return self.reader.classifier.bias_name

    @property
    def weight_name(self) -> str | None:
        """Name of the classifier's weight, None where the update holds none or it is a convolution's."""
        return self.reader.classifier.weight_name

    def allows(self, update: Update) -> bool:
        """The classifier's part of `update` can be a true gradient: what lies in forbidden directions is rounding.

        A random update passes with negligible probability. Always False where the loss forbids no direction.
        """
        names = [name for name in (self.weight_name, self.bias_name) if name is not None]
        columns = torch.cat([update.tensors[n].double().reshape(self.reader.classes, -1) for n in names], dim=1)
        return bool(columns.any()) and self._fits(columns)

    def sign(self, bias: Float[Tensor, " class"]) -> tuple[int, bool] | None:
        """Which of +`bias` and -`bias` is the classifier's bias in the update: its sign, and whether that is certain.
        None where the loss can have neither.

        One example of three classes or more: the largest entry of the gradient, its label's, is negative. Several: the
        sign for which whole counts of labels explain the gradient. Where neither sign does, as for a model that fits
        its data, the first rule is a guess. On digits, untrained networks: right for all batches of up to 16.
        """
        if len(self.forbidden) and not self._fits(bias[:, None].double()):
            return None
        gradient = self._gradient_of(bias.double())
        largest = -int(gradient[gradient.abs().argmax()].sign())
        if self.reader.observation.num_examples == 1:
            return largest, self.reader.classes > 2
        misfit = {sign: self._misfit(sign * gradient) for sign in (1, -1)}
        likely = min(misfit, key=lambda sign: misfit[sign])
        return (likely, True) if misfit[likely] < min(EXPLAINED, misfit[-likely]) else (largest, False)

    def weight_for(self, bias: Float[Tensor, " class"], length: float) -> Tensor | None:
        """(class, feature) guess at the weight's part of an update with that `bias`: as if all examples had the
        features of grey noise. Good enough to count labels; None where the weight is not in the update.
        """
        features = self.reader.classifier.features
        if self.weight_name is None or features is None or not features.any():
            return None
        guess = torch.outer(bias, features.mean(0).to(bias))
        return guess * (length / guess.norm().clamp_min(torch.finfo(guess.dtype).tiny))

    def _gradient_of(self, tensor: Tensor) -> Tensor:
        """Mean gradient over the local steps that `tensor`, in the units of the update, stands for."""
        sent = self.reader.observation.update
        for name, made in self.reader.gradients.items():
            if made.any():
                tensor = tensor * float(made.double().norm() / sent.tensors[name].double().norm())
                break
        return -tensor if sent.kind == "difference" else tensor

    def _misfit(self, gradient: Tensor) -> float:
        directions = self.reader.directions(self.reader.classifier.logits.mean(0).expand(self.reader.classes, -1))
        share = fit_shares(directions, gradient)
        if (count := self.reader.observation.num_examples) is not None:
            share = (share * count).round() / count
        return float((share @ directions - gradient).norm() / gradient.norm())

    def _fits(self, columns: Tensor) -> bool:
        if not len(self.forbidden):
            return False
        return bool((self.forbidden @ columns).norm() < TOLERANCE * columns.norm())


def _forbidden(reader: ClassifierGradient) -> Tensor:
    """Directions orthogonal to the derivatives at many random scores, for every label."""
    count = reader.classes
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4, count, count, generator=generator, dtype=torch.float64).to(reader.classifier.logits.device)
    derivatives = torch.cat([reader.directions(logits) for logits in drawn])  # (4 x label, class)
    _, values, directions = torch.linalg.svd(derivatives, full_matrices=False)
    eps = torch.finfo(reader.classifier.logits.dtype).eps
    return directions[values < 100 * eps * values[0]]
