"""How free numbers become a batch, where the data are not free themselves: one-hot groups, symmetric edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from invertigo.attacks.matching.space import Field


@runtime_checkable
class Chart(Protocol):
    """A differentiable map from the unknowns of an optimisation to the fields of a batch."""

    @property
    def unknowns(self) -> Mapping[str, Field]:
        """What is optimised: shapes without the restart dimension, and ranges."""
        ...

    def fields(self, unknowns: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Fields of a batch (restart, batch, ...); entries that are no unknowns of the chart are passed through."""
        ...

    def settled(self, fields: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The batch (batch, ...) that a found solution stands for, e.g. with whole edges instead of likely ones."""
        ...
