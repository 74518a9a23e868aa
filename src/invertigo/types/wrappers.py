"""Models inside the wrappers that training code puts around them, and names with the prefixes these leave behind."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

PREFIXES = frozenset({"module", "_orig_mod", "_module", "_forward_module", "_fsdp_wrapped_module"})
"""Parts of parameter names that `DataParallel`, `torch.compile`, Opacus, Lightning Fabric and FSDP add."""
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "AbstractGradSampleModule": "_module",
    "_FabricModule": "_forward_module",
}
"""By class name, as most of these packages need not be installed. A user's own class may do more than pass on."""


def bare(model: nn.Module) -> nn.Module:
    """The module inside any nesting of wrappers that compute the same: `torch.compile`, (distributed) data parallel,
    Opacus' `GradSampleModule`. It shares its parameters with the wrapper.
    """
    kinds = {kind.__name__ for kind in type(model).__mro__}
    inner = next((getattr(model, part) for name, part in _WRAPPERS.items() if name in kinds), None)
    return model if inner is None else bare(inner)


def without_prefixes(name: str) -> str:
    """`name` without what wrappers add to it, in any order and depth."""
    return ".".join(part for part in name.split(".") if part not in PREFIXES)


def renamed(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """`tensors` under those of `names` that differ by wrappers' prefixes only; others keep the name they have.

    Nothing is renamed where two names would become one.
    """
    known = set(names)
    plain = {without_prefixes(name): name for name in known}
    wanted = {name: name if name in known else plain.get(without_prefixes(name), name) for name in tensors}
    unique = len(plain) == len(known) and len(set(wanted.values())) == len(wanted)
    return {wanted[name] if unique else name: tensor for name, tensor in tensors.items()}


def duplicate(model: nn.Module) -> nn.Module:
    """A deep copy, also of a model that keeps computed tensors as attributes, as old-style weight norm does.

    Opacus' hooks, which note what each example adds to a gradient, stay behind: they are no part of what it computes.
    """
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and value.grad_fn is not None
    }
    with _unhooked(model):
        return copy.deepcopy(model, computed)


def computing(model: nn.Module) -> nn.Module:
    """`bare`, or a copy of it where hooks are to be left behind (see `duplicate`)."""
    model = bare(model)
    hooked = any(_of_opacus(hook) for module in model.modules() for hook in module._forward_hooks.values())
    return duplicate(model) if hooked else model


@contextmanager
def _unhooked(model: nn.Module) -> Iterator[None]:
    kinds = ("_forward_hooks", "_backward_hooks")
    before = [(module, kind, getattr(module, kind)) for module in model.modules() for kind in kinds]
    try:
        for module, kind, hooks in before:
            if any(map(_of_opacus, hooks.values())):
                kept = {number: hook for number, hook in hooks.items() if not _of_opacus(hook)}
                setattr(module, kind, OrderedDict(kept))
        yield
    finally:
        for module, kind, hooks in before:
            setattr(module, kind, hooks)


def _of_opacus(hook: Callable) -> bool:
    while isinstance(hook, partial):
        hook = hook.func
    return str(getattr(hook, "__module__", "")).startswith("opacus.")
