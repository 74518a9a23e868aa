"""Tensors as frameworks hand them over: arrays, lists, None for what was not used, names with wrappers' prefixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invertigo.types.domain import Domain
from invertigo.types.errors import InvalidValueError, MismatchError
from invertigo.types.update import check_fits
from invertigo.types.wrappers import duplicate, renamed


def as_tensors(handed: Mapping[str, Any], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies under the names of `like`, with its devices and, where both are floating, at least its precision.

    Half precision is widened and so stays recognisable by its values. None is left out. Arrays are read as tensors.

    Raises: InvalidValueError for what is no tensor.
    """
    made = {name: _tensor(name, value) for name, value in handed.items() if value is not None}
    return {name: _follow(tensor, like.get(name)) for name, tensor in renamed(made, like).items()}


def gradients_by_name(
    handed: Mapping[str, Any] | Sequence[Any], parameters: Mapping[str, Tensor], model: nn.Module, domain: Domain
) -> dict[str, Tensor]:
    """A gradient for each of `parameters`: by name, or in their order. None stands for zeros, and so does a name that
    is missing when the model's output does not depend on that parameter.

    Raises: MismatchError when names, shapes or the number of tensors do not fit.
    """
    if not isinstance(handed, Mapping):
        if len(handed) != len(parameters):
            raise MismatchError(
                f"{len(handed)} gradient tensors were given, but the model has {len(parameters)} trainable "
                "parameters. Give one for each, None for those the loss does not reach, or a dictionary by name."
            )
        handed = dict(zip(parameters, handed))
    found = as_tensors(handed, parameters)
    if not found:
        raise MismatchError("No gradient was given for any parameter, so the update is empty.")
    absent = set(renamed(dict.fromkeys(handed, torch.empty(0)), parameters)) & set(parameters)
    lacking = [name for name in parameters if name not in found and name not in absent]
    unused = unreached(model, domain, parameters) if lacking else set()
    blank = {n: torch.zeros_like(p) for n, p in parameters.items() if n in absent | unused}
    update = {**blank, **found}
    check_fits(update, parameters)
    return {name: update[name] for name in parameters}


def unreached(model: nn.Module, domain: Domain, parameters: Mapping[str, Tensor]) -> set[str]:
    """Names of parameters on which the model's output does not depend, by a dry run; none where it cannot be run."""
    named = {name: p for name, p in model.named_parameters() if name in parameters}
    like = next(iter(named.values()))
    shape = domain.example_shapes().get(domain.inputs)
    if shape is None:
        return set()
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.enable_grad():
            outputs = [t for t in tensors_in(model(like.new_full((1, *shape), 0.5))) if t.requires_grad]
            total = torch.stack([t.sum() for t in outputs]).sum()
        grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return set()
    finally:
        for module, training in modes.items():
            module.training = training
    return {name for name, grad in zip(named, grads) if grad is None}


def with_state(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model` that holds what `state` says of its frozen parameters and its buffers.

    Raises: MismatchError when a tensor has another shape.
    """
    fixed = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad} | dict(model.named_buffers())
    told = {n: t for n, t in state.items() if n in fixed}
    check_fits(told, {n: fixed[n] for n in told}, "state dict")
    if not told:
        return model
    model = duplicate(model)
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, tensor in told.items():
            own[name].copy_(tensor)
    return model


def tensors_in(output: Any) -> list[Tensor]:
    """All tensors of a model's output, in order: a tensor, a tuple, list or dictionary of them, or an object's own."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    elif not isinstance(output, (tuple, list)):
        output = list(vars(output).values()) if hasattr(output, "__dict__") else []
    return [tensor for part in output for tensor in tensors_in(part)]


def _tensor(name: str, value: Any) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidValueError(
            f"What was given for '{name}' is a {type(value).__name__} that cannot be read as numbers ({error}); "
            "give a tensor or a NumPy array."
        ) from error
    return tensor.detach().clone()


def _follow(tensor: Tensor, like: Tensor | None) -> Tensor:
    if like is None:
        return tensor
    dtype = torch.promote_types(tensor.dtype, like.dtype) if like.is_floating_point() else like.dtype
    return tensor.to(like.device, dtype)
