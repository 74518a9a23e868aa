"""Models by name: the registry, and building from it with a generator of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from invertigo.models.layers import positive
from invertigo.types import ConfigurationError, InvalidValueError, Registry, did_you_mean

Shape = tuple[int, int, int]
"""Channels, height and width of one image."""

AXES = {"images": ("channels", "height", "width"), "graphs": ("nodes", "features")}
"""What the sides of an `input_shape` mean, for each domain that a model may read; models name theirs as `domain`."""

registry: Registry[Callable[..., nn.Module]] = Registry("models", "model")
"""Factories `(input_shape, num_classes, **options) -> nn.Module`; ours are classes that carry their `paper`."""


def build(
    name: str,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    generator: torch.Generator | None = None,
    **options: object,
) -> nn.Module:
    """A new model, in training mode, on the CPU.

    Args:
        name: `mlp`, `lenet`, `convnet`, `resnet`, `vgg`, `vit`, `gcn`, `gat`, or a name that another package registers.
        input_shape: Channels, height and width; for a graph network nodes and features.
        num_classes: Number of outputs.
        generator: Draws the initial weights; the global random state then stays as it is. None draws as PyTorch does.
        options: The model's own, see its docstring.

    Raises: UnknownNameError, ConfigurationError for an option that the model does not have, InvalidValueError.
    """
    factory = registry[name]
    check_options(f"model '{name}'", factory, options)
    shape = checked_shape(input_shape, getattr(factory, "domain", "images"))
    with weights_drawn_by(generator), torch.device("cpu"):
        return factory(shape, checked_classes(num_classes), **options)


def options_of(factory: Callable[..., nn.Module]) -> dict[str, object]:
    """The options of a model with their defaults."""
    parameters = list(inspect.signature(factory).parameters.values())[2:]
    return {p.name: p.default for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def check_options(what: str, factory: Callable[..., nn.Module], options: dict[str, object]) -> None:
    """Refuse an option that `factory` does not take. Raises: ConfigurationError."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = options_of(factory)
    for option in options:
        if option not in known:
            raise ConfigurationError(
                f"The {what} has no option '{option}'.{did_you_mean(option, known)} "
                f"Its options: {', '.join(known) or 'none'}."
            )


@contextmanager
def weights_drawn_by(generator: torch.Generator | None) -> Iterator[None]:
    """Inside, PyTorch's global CPU generator continues `generator`; outside, it is as if nothing had happened.

    `nn.Module` constructors take no generator, so the global one is lent a seed and given back its state.
    """
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed every accelerator.
        torch.default_generator.manual_seed(seed)
        yield


def checked_shape(input_shape: Sequence[int], domain: str = "images") -> tuple[int, ...]:
    """A positive integer for each axis of the domain. Raises: InvalidValueError."""
    shape, axes = tuple(input_shape), AXES[domain]
    if len(shape) != len(axes):
        example = "(3, 32, 32)" if domain == "images" else "(64, 140)"
        raise InvalidValueError(f"input_shape is {shape}; it must be ({', '.join(axes)}), e.g. {example}.")
    positive(**dict(zip(axes, shape)))
    return shape


def checked_classes(num_classes: int) -> int:
    """A positive integer. Raises: InvalidValueError."""
    positive(num_classes=num_classes)
    return num_classes
