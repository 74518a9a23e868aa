"""Where parameters meet the data: found by what the forward pass does, not by the class of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from invertigo.guards.operations import Meeting, meetings

OPENED = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
SCALES = frozenset({"mul", "__mul__", "__rmul__", "div", "__truediv__", "neg", "__neg__", "to", "type", "float"})
"""Functions that leave every entry of a parameter where it is, whatever they make of its value."""


@dataclass(frozen=True, eq=False)
class Origin:
    """A tensor made of one parameter alone. `entries` (of the tensor's shape) are places in the flat parameter; None
    where they stand as in the parameter itself.
    """

    parameter: str
    entries: Tensor | None = None

    def placed(self, like: Tensor) -> Tensor:
        """`entries`, whatever they are."""
        return torch.arange(like.numel()).reshape(like.shape) if self.entries is None else self.entries


@dataclass(frozen=True, eq=False)
class Use:
    """One meeting of a parameter with the batch. `output` is what it came to; the loss is differentiated by it.

    `bias` is the parameter that the same function added, if any.
    """

    parameter: str
    entries: Tensor | None
    meeting: Meeting
    output: Tensor
    bias: Origin | None = None


@dataclass
class Tracer(TorchFunctionMode):
    """Cuts every parameter off the graph where it meets the data, and notes the meeting down.

    What autograd still finds of a parameter afterwards was used in a way that is not understood; so nothing escapes:
    functions of a user's own, recurrent layers, in-place sums. Python functions of PyTorch are looked into.
    """

    parameters: Mapping[str, Tensor]
    uses: list[Use] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.origins: Any = WeakIdKeyDictionary()
        self.of_batch: Any = WeakIdKeyDictionary()
        for name, tensor in self.parameters.items():
            self.origins[tensor] = Origin(name)

    def reads(self, fields: Mapping[str, Tensor]) -> None:
        """These tensors are the batch; whatever is computed from them depends on it."""
        for tensor in fields.values():
            self.of_batch[tensor] = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        planted = [t for t in given if t in self.origins]
        if planted and isinstance(func, FunctionType) and func.__module__ == "torch.nn.functional":
            with self:
                return _opened(func)(*args, **kwargs)
        # Tensors of an unknown way are taken for the batch's when they carry a graph of their own.
        batch = [t for t in given if t in self.of_batch or (t not in self.origins and t.grad_fn is not None)]
        if planted and batch:
            return self._meet(func, args, kwargs)
        made = func(*args, **kwargs)
        if batch:
            self._mark(made)
        elif len(planted) >= 1:
            self._derive(func, args, kwargs, planted, made)
        return made

    def _mark(self, made: Any) -> None:
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.of_batch[tensor] = True

    def _derive(self, func: Any, args: Any, kwargs: Any, planted: list[Tensor], made: Any) -> None:
        """Remember where the entries of a parameter went, as long as each is still an entry of one parameter."""
        if len({id(t) for t in planted}) != 1:
            return
        source, origin = planted[0], self.origins[planted[0]]
        if getattr(func, "__name__", "") in SCALES:
            if isinstance(made, Tensor) and made.shape == source.shape:
                self.origins[made] = origin
            return
        places = origin.placed(source)
        try:
            moved = func(*_swapped(args, source, places), **_swapped(kwargs, source, places))
        except (RuntimeError, TypeError, IndexError):
            return
        for tensor, entries in zip(tree_leaves(made), tree_leaves(moved)):
            if isinstance(tensor, Tensor) and isinstance(entries, Tensor) and entries.dtype == torch.long:
                self._place(tensor, entries, origin)

    def _place(self, tensor: Tensor, entries: Tensor, origin: Origin) -> None:
        whole = self.parameters[origin.parameter].detach().flatten()
        if entries.shape == tensor.shape and bool(((entries >= 0) & (entries < len(whole))).all()):
            same = whole[entries.to(whole.device)].to(tensor.dtype) == tensor.detach()
            if bool(same.all()):
                self.origins[tensor] = Origin(origin.parameter, entries)

    def _meet(self, func: Any, args: Any, kwargs: Any) -> Any:
        found = meetings(func, args, kwargs, lambda t: isinstance(t, Tensor) and t in self.origins)
        if found is None:
            made = func(*args, **kwargs)
            self._mark(made)
            return made
        cut = {id(m.weight): m.weight.detach() for m in found.met}
        cut |= {id(b): b.detach() for b in found.biases}
        args, kwargs = tree_map(lambda t: cut.get(id(t), t), (args, kwargs))
        made = func(*args, **kwargs)
        top = made if made.requires_grad else made.detach().requires_grad_()
        for meeting in found.met:
            origin = self.origins[meeting.weight]
            bias = next((self.origins[b] for b in found.biases), None)
            self.uses.append(Use(origin.parameter, origin.entries, meeting, top, bias))
        # A copy goes on, so that functions that work in place do not overwrite what is differentiated by.
        passed = top.clone()
        self._mark(passed)
        return passed


def _opened(func: FunctionType) -> Callable[..., Any]:
    """The function without its detour around modes like ours, so that what it calls is seen."""
    own = {**func.__globals__, **{name: (lambda *_: False) for name in OPENED}}
    copy = FunctionType(func.__code__, own, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def _swapped(given: Any, old: Tensor, new: Tensor) -> Any:
    return tree_map(lambda t: new if t is old else t, given)
