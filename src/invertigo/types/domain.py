"""What a domain (a kind of private data) must know: the contract of `domains/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from invertigo.types.batch import Batch


@dataclass(frozen=True)
class Scores:
    """Scores of a reconstruction, per example first.

    `per_example[metric]` is a (batch,) tensor in the order of the truth; `matching[i]` is the index of the
    reconstructed example that was paired with true example `i`.
    """

    per_example: Mapping[str, Tensor]
    matching: Tensor

    def __len__(self) -> int:
        return self.matching.shape[0]

    def mean(self, metric: str) -> float:
        """Mean over the examples of the per-example score."""
        return self.per_example[metric].mean().item()

    def median(self, metric: str) -> float:
        """Median over the examples (the mean of the two middle ones for an even count)."""
        return torch.quantile(self.per_example[metric].double(), 0.5).item()


@dataclass(frozen=True)
class Identification:
    """Could an observer pick the true example out of a line-up by looking at the reconstruction?

    `ranks[i]` is 1 when the truth is nearer to reconstruction `i` than all `decoys` other examples.
    """

    ranks: Tensor
    decoys: int

    @property
    def identified(self) -> Tensor:
        """(batch,) booleans: the truth came first."""
        return self.ranks == 1


@dataclass(frozen=True)
class Metric:
    """A score that a domain reports. `privacy_loss` tells the direction: True when larger means more was rebuilt."""

    name: str
    label: str
    privacy_loss: bool
    unit: str = ""
    description: str = ""


@runtime_checkable
class Domain(Protocol):
    """A kind of private data: its fields and ranges, how two batches compare, how one is drawn."""

    name: ClassVar[str]
    inputs: ClassVar[str]
    """Name of the batch field that the model reads."""
    target: ClassVar[str]
    """Name of the batch field that the loss reads beside the model's output."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The scores it gives; the first one is the headline metric."""
        ...

    def example_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one example of each field an attack has to rebuild by optimisation."""
        ...

    def bounds(self, name: str) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of field `name` as the model reads it; broadcastable to one example."""
        ...

    def score(self, truth: Batch, reconstruction: Mapping[str, Tensor]) -> Scores:
        """Per-example scores after optimal matching of the two batches."""
        ...

    def baselines(self, truth: Batch, public: Batch | None) -> Mapping[str, Scores]:
        """Scores of guesses that read nothing from the update (mean of public data, nearest public example, ...)."""
        ...

    def identify(self, truth: Batch, reconstruction: Mapping[str, Tensor], decoys: Batch) -> Identification:
        """Rank of each true example among the decoys, seen from its (matched) reconstruction."""
        ...

    def render(self, fields: Mapping[str, Tensor]) -> list[bytes]:
        """One PNG per example."""
        ...


@dataclass(frozen=True)
class Interval:
    """An estimate with a bootstrap confidence interval; `n` examples stand behind it."""

    estimate: float
    low: float
    high: float
    n: int
    confidence: float = field(default=0.95)
