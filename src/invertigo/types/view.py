"""What an adversary who knows the defense makes of an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertigo.types.task import Task
from invertigo.types.update import Update

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class AdversaryView:
    """A defended update as read by an adversary who knows the defense and its settings, but not its random draws.

    Every optimisation attack follows it: it matches `update` instead of what was received, at the entries that are
    `visible` only, after passing its own simulated update through `surrogate`.
    """

    knows: str
    """One sentence for the report: what the adversary knows and how that is used."""
    update: Update | None = None
    """The best estimate of the undefended update from all releases; None: the one that was received."""
    visible: Tensors | None = None
    """By parameter name, 1 where an entry tells something and 0 where it is hidden; a name left out is all visible."""
    noise_std: Mapping[str, float] | None = None
    """Standard deviation of the noise that remains on each parameter's entries."""
    surrogate: Callable[[Tensors], Tensors] | None = None
    """The defense as a differentiable map of the simulated update, tensors of (restart, *layer) by name."""
    replay: Callable[[Tensors], Tensors] | None = None
    """The defense itself where it draws nothing and `surrogate` only comes near it: a map like that one, to be compared
    with `update` entry by entry. Of several candidates, the one whose update would have been sent alike is taken."""
    partial: bool = False
    """Entries are missing or known by their range only, though `visible` does not leave them out: attacks also try
    stronger priors, as they do where it does."""
    transform: Callable[[Tensors], Tensors] | None = None
    """What the client does to its batch, as a differentiable map of one candidate's named tensors (batch, ...)."""
    unknowns: Mapping[str, tuple[int, ...]] | None = None
    """Shapes of the defense's random draws in this batch, by name: attacks optimise them with the private fields, from
    standard normal starts, and `transform` (or the model's step) reads them beside those."""
    draw: Callable[[Tensors, torch.Generator], Tensors] | None = None
    """What the client does to its batch, with its randomness drawn from the generator: for attacks that learn from
    clients that they simulate. Not differentiable, and for one batch (batch, ...) at a time."""
    task: Task | None = None
    """The model to simulate with, where it is not the one that was sent (same parameter names)."""
