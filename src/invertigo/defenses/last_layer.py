"""The classifier of a client's model, and the representation it reads."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from invertigo.attacks.classifier import Classifier, find_classifier
from invertigo.types import (
    InvalidValueError,
    LocalTraining,
    Observation,
    RequirementError,
    Task,
    Update,
    buffers_of,
    trainable,
)


def find_last_layer(defense: str, task: Task, model: nn.Module, mode: str) -> tuple[Classifier, str, nn.Linear]:
    """The last linear layer with one output a class, its weight's name and the module, found by a dry run.

    Args:
        defense: which asks; named in the error.
        model: which runs, perhaps a client's copy of `task.model`.

    Raises: InvalidValueError when there is none, or it reads something other than one vector an example.
    """
    parameters = trainable(model)
    dry = Observation(
        replace(task, model=model),
        parameters,
        buffers_of(model),
        Update({name: tensor.detach() for name, tensor in parameters.items()}, "gradient"),
        LocalTraining(mode=mode),  # type: ignore[arg-type]
    )
    try:
        found = find_classifier(dry, parameters)
    except RequirementError:
        found = None
    if found is None or found.weight_name is None or not isinstance(found.module, nn.Linear):
        raise InvalidValueError(
            f"Defense '{defense}' hides the representation that the classifier reads, but this model has no trainable "
            "linear layer with one output a class that reads one vector an example, so there is nothing for it to hide "
            "and every layer would be sent as it is. End the model with nn.Linear on flattened or pooled features, "
            "state Task(num_classes=...), or prune all layers (defense 'dual_pruning')."
        )
    return found, found.weight_name, found.module
