"""The contract of an attack by a malicious server."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from invertigo.types.attack import Attack
from invertigo.types.batch import Batch
from invertigo.types.plant import Plant
from invertigo.types.task import Task
from invertigo.types.training import LocalTraining


@runtime_checkable
class ActiveAttack(Attack, Protocol):
    """An attack of a malicious server: it plants parameters, and `reconstruct` reads the update back.

    It changes parameters only, never the client's code, and `reconstruct` has nothing but the observation: the plant is
    in `observation.knowledge.plant`. `requires` holds `Requirement.CRAFTED_MODEL`.
    """

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
        """Craft the model. `num_examples` is what the server expects of one client, `clients` are summed.

        Raises: RequirementError when the architecture has no place for this attack, saying what is missing.
        """
        ...
