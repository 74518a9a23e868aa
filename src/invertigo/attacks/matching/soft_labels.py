"""Labels as unknowns beside the images: which numbers stand for them, as far as the loss itself tells."""

from __future__ import annotations

from invertigo.attacks.labels import LabelGuess, infer_labels, tells_classes
from invertigo.attacks.targets import Targets, dense_classes, float_targets
from invertigo.types import Observation, RequirementError


def inferred(observation: Observation) -> LabelGuess | None:
    """The labels as the update tells them; None where they can only be optimised, as the loss reads no class numbers.

    Raises: RequirementError where they can be neither inferred nor optimised.
    """
    try:
        return infer_labels(observation)
    except RequirementError:
        if observation.num_examples is None or tells_classes(observation) or _other_form(observation) is None:
            raise
        return None


def soft_form(observation: Observation) -> Targets:
    """The form of the labels when they are optimised. Raises: RequirementError when the loss does not tell it."""
    classes, other = observation.task.num_classes, _other_form(observation)
    if classes is not None and classes > 1 and (other is None or tells_classes(observation)):
        return Targets("classes", (), classes)
    if other is None or tells_classes(observation):  # classes, of which nobody knows how many there are
        raise RequirementError(
            "Labels can only be optimised when the number of classes is known, or when a dry run of the loss tells "
            "what targets it reads; give num_classes with the task, or the labels in Knowledge."
        )
    return other


def _other_form(observation: Observation) -> Targets | None:
    return dense_classes(observation) or float_targets(observation)
