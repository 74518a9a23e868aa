"""The contract of a defense: what it may change on a client, what it reports, and what an adversary knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from invertigo.types.batch import Batch
from invertigo.types.observation import Observation
from invertigo.types.paper import Paper
from invertigo.types.task import Task
from invertigo.types.training import LocalTraining
from invertigo.types.view import AdversaryView

Tensors = Mapping[str, Tensor]
ANY_DOMAIN = "any"
"""Stands in `Defense.domains` for every domain: the defense changes gradients or updates, whatever the data are."""


@dataclass(frozen=True)
class Step:
    """One local training step as a defense sees it. The model and the batch are the client's own: read, never write.

    `model` holds the step's parameters, in the client's mode. `per_example()` gives each example's gradient by name,
    (batch, *layer). `loss(parameters)` is the loss of this batch at other parameters, in float64. `generator` draws the
    defense's randomness; it is seeded by the operating system unless a seed was asked for. `facts` are figures that the
    defense reports (`fallbacks`, `epsilon`, ...); all steps of a round share them.
    """

    task: Task
    model: nn.Module
    batch: Batch
    local: LocalTraining
    number: int
    round: int
    generator: torch.Generator
    per_example: Callable[[], dict[str, Tensor]]
    loss: Callable[[Tensors], Tensor]
    facts: MutableMapping[str, float]


@dataclass(frozen=True)
class DefenseTrace:
    """What a defense did to one release, measured rather than declared.

    `cosine` and `changed` compare the release with what the same steps would have sent without the defense: cosine over
    all entries, and share of entries that differ. `undefended` says that the release equals the raw update.
    """

    defense: str
    cosine: float
    changed: float
    visible: float
    """Share of entries of the release that are not zero."""
    norm_ratio: float
    """Length of the release over the length of the raw update."""
    layer_cosines: Mapping[str, float]
    bytes: int
    raw_bytes: int
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def undefended(self) -> bool:
        """The release is the raw update, to rounding."""
        return self.changed == 0.0 or (abs(1 - self.cosine) < 1e-12 and abs(1 - self.norm_ratio) < 1e-6)


@runtime_checkable
class Defense(Protocol):
    """A frozen dataclass of settings. It overrides the hooks it needs; the others leave things as they are.

    Order of a round: `on_batch` and `on_gradient` in every local step, `on_update` once, on what is about to be sent.
    `on_aggregate` is the server's, once a round of training. No hook changes its arguments in place.
    """

    name: ClassVar[str]
    paper: ClassVar[Paper]
    domains: ClassVar[frozenset[str]]
    """Names of the domains whose data it can change, or `ANY_DOMAIN`."""
    strength: ClassVar[str]
    """Name of the setting that trades privacy for utility."""
    strengths: ClassVar[tuple[float, ...]]
    """Values of that setting from weak to strong, for a privacy-utility curve."""

    def prepare(self, task: Task, public: Batch | None, *, generator: torch.Generator) -> Task:
        """The task that all clients train instead, fixed before the first round and known to everybody."""
        return task

    def on_batch(self, batch: Batch, step: Step) -> Batch:
        """What the step trains on instead of `batch`."""
        return batch

    def on_gradient(self, gradient: Tensors, step: Step) -> Tensors:
        """The gradient that the step takes (or that is sent) instead of `gradient`, by parameter name."""
        return gradient

    def on_update(self, update: Tensors, step: Step) -> Tensors:
        """What is sent instead of `update`; `step` is the last local step."""
        return update

    def on_aggregate(self, mean: Tensors, local: LocalTraining, examples: Sequence[int]) -> Tensors:
        """What the server applies instead of the clients' mean; `examples` are those behind each client's release."""
        return mean

    def wire_bytes(self, update: Tensors) -> int:
        """Bytes that the release takes on the wire; by default every entry at its own width."""
        return sum(t.numel() * t.element_size() for t in update.values())

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """How an adversary who knows this defense and its settings reads what it received."""
        ...


def protects(defense: Defense | type[Defense], domain: str) -> bool:
    """Whether the defense works on clients whose data are of this domain."""
    return bool({ANY_DOMAIN, domain} & defense.domains)
