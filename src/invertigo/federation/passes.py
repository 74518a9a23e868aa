"""One forward pass of the watched model: what it read, what it returned, and what the losses after it read."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from invertigo.federation.randomness import RandomState

TARGETS = ("labels", "label", "targets", "target")
"""Names under which models that compute their own loss read what it is compared with."""
CANDIDATES = 6
"""Tensors that are tried as the target of a loss that was not recognised."""


@dataclass(frozen=True)
class Slot:
    """Stands where a tensor stood in a recorded call."""

    name: str


@dataclass(frozen=True)
class Container:
    """Stands where a container stood that cannot hold slots: its leaves, and how they are put together."""

    leaves: tuple[Any, ...]
    shape: pytree.TreeSpec


@dataclass(frozen=True)
class Term:
    """A call of one of PyTorch's losses on (a part of) the model's output: `output` counts the output's tensors."""

    function: Callable[..., Tensor]
    output: int
    target: Tensor
    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of another output and target."""
        return self.function(output, target, *self.positional, **self.named)


@dataclass
class Pass:
    """One forward pass of the model in training, in local step `step`.

    `tensors` are the tensors that the model read by the names of its arguments, `args` and `kwargs` the call with a
    `Slot` in place of each. `target` is what a loss read that was recognised, `candidates` what else was read after
    the forward pass and has a row an example; `notes` are fields that the user recorded.
    """

    tensors: dict[str, Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mode: str | None
    step: int
    state: RandomState
    precision: torch.dtype | None = None
    target: Tensor | None = None
    width: int | None = None
    terms: list[Term] = field(default_factory=list)
    candidates: list[Tensor] = field(default_factory=list)
    notes: dict[str, Tensor] = field(default_factory=dict)
    scalars: list[int] = field(default_factory=list)
    outputs: list[weakref.ref[Tensor]] = field(default_factory=list)
    statistics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def named_target(self) -> str | None:
        """The argument of the model that holds the targets, by its name."""
        return next((name for name in self.tensors if name in TARGETS), None)

    @property
    def primary(self) -> str:
        """The argument that holds the private examples: the first tensor that is no target."""
        return next((name for name in self.tensors if name != self.named_target), next(iter(self.tensors)))

    @property
    def inputs(self) -> Tensor:
        """The private examples."""
        return self.tensors[self.primary]

    @property
    def others(self) -> tuple[Tensor, ...]:
        """Further tensors that the model read, in the order of its arguments."""
        return tuple(tensor for name, tensor in self.tensors.items() if name != self.primary)

    def returned(self, output: Any) -> None:
        """Keep what identifies the parts of the output, without keeping them alive."""
        leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        self.outputs = [weakref.ref(leaf) for leaf in leaves]
        self.scalars = [k for k, leaf in enumerate(leaves) if leaf.ndim == 0 and leaf.requires_grad]
        first = next((leaf for leaf in leaves if leaf.ndim in (2, 3)), None)
        self.width = None if first is None else first.shape[-1]

    def place(self, tensor: Any) -> int | None:
        """Which of the output's tensors this is."""
        return next((k for k, own in enumerate(self.outputs) if own() is tensor), None)

    def offer(self, tensor: Any) -> None:
        """A tensor that was read after the forward pass: perhaps the target."""
        if not isinstance(tensor, Tensor) or tensor.requires_grad or tensor.ndim == 0 or not self._has_rows(tensor):
            return
        known = any(tensor.shape == one.shape and torch.equal(tensor, one) for one in self.candidates)
        if len(self.candidates) < CANDIDATES and not known:
            self.candidates.append(tensor.detach().clone())

    def _has_rows(self, tensor: Tensor) -> bool:
        return len(tensor) == len(self.inputs)


def read_call(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Tensor], tuple[Any, ...], dict[str, Any]]:
    """Copies of all tensors in a call of `model`, by name in the order of its arguments, and the call without them."""
    names = _names(model, args, kwargs)
    found: dict[str, Tensor] = {}

    def hollow(name: str, value: Any) -> Any:
        leaves, shape = pytree.tree_flatten_with_path(value)
        replaced = []
        for path, leaf in leaves:
            if isinstance(leaf, Tensor):
                slot = Slot(name + "".join(f".{_key(step)}" for step in path))
                found[slot.name] = leaf.detach().clone()
                leaf = slot
            replaced.append(leaf)
        try:
            return pytree.tree_unflatten(replaced, shape)
        except Exception:  # containers that look at what they hold, such as PackedSequence
            return Container(tuple(replaced), shape)

    left = tuple(hollow(name, value) for name, value in zip(names, args))
    right = {name: hollow(name, value) for name, value in kwargs.items()}
    order = {name: place for place, name in enumerate([*names, *_signature(model)])}
    ranked = sorted(found, key=lambda name: order.get(name.split(".")[0], len(order)))
    return {name: found[name] for name in ranked}, left, right


def filled(structure: Any, fields: Mapping[str, Tensor]) -> Any:
    """A recorded call with tensors in its slots again."""

    def fill(leaf: Any) -> Any:
        if isinstance(leaf, Container):
            return pytree.tree_unflatten([fill(one) for one in leaf.leaves], leaf.shape)
        return fields[leaf.name] if isinstance(leaf, Slot) else leaf

    return pytree.tree_map(fill, structure, is_leaf=lambda leaf: isinstance(leaf, (Slot, Container)))


def same_call(passes: Sequence[Pass]) -> bool:
    """All passes called the model in the same form, with the same values in all that is no tensor."""
    first = passes[0]
    try:
        return all((p.args, p.kwargs) == (first.args, first.kwargs) for p in passes)
    except (RuntimeError, ValueError):  # values that cannot be compared
        return False


def _names(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    known = [name for name in _signature(model) if name not in kwargs]
    return [known[k] if k < len(known) else f"argument_{k}" for k in range(len(args))]


def _signature(model: nn.Module) -> list[str]:
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _key(step: Any) -> str:
    return str(getattr(step, "key", getattr(step, "idx", getattr(step, "name", step))))
