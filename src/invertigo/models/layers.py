"""Building blocks that every model shares: activations, normalisation, how options are checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from torch import nn

from invertigo.types import InvalidValueError, UnknownNameError, did_you_mean

T = TypeVar("T")

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "relu6": nn.ReLU6,
}
"""None works in place: an overwritten input cannot be differentiated twice."""

NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(_groups(channels), channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "none": lambda _: nn.Identity(),
}
"""Normalisation of (batch, channel, height, width) maps. `layer` normalises a whole example at once."""

MAX_GROUPS, LEAST_CHANNELS = 32, 4


def _groups(channels: int) -> int:
    """As many groups as possible, at most 32, of equal size and of at least 4 channels."""
    fitting = (g for g in range(MAX_GROUPS, 1, -1) if channels % g == 0 and channels // g >= LEAST_CHANNELS)
    return next(fitting, 1)


def activation(name: str) -> nn.Module:
    """A new activation called `name`."""
    return choose("activation", name, ACTIVATIONS)()


def norm(name: str, channels: int) -> nn.Module:
    """A new normalisation of `channels` maps."""
    return choose("norm", name, NORMS)(channels)


def head(features: int, classes: int, hidden: int | None, activated_by: str) -> nn.Module:
    """The end of a model: one linear layer, or `hidden` features between two."""
    if hidden is None:
        return nn.Linear(features, classes)
    positive(hidden=hidden)
    return nn.Sequential(nn.Linear(features, hidden), activation(activated_by), nn.Linear(hidden, classes))


def choose(option: str, value: str, known: Mapping[str, T]) -> T:
    """`known[value]`. Raises: UnknownNameError with what is known."""
    if value not in known:
        raise UnknownNameError(
            f"{option} is {value!r}, which does not exist.{did_you_mean(str(value), known)} Known: {', '.join(known)}."
        )
    return known[value]


def positive(**numbers: int) -> None:
    """Refuse anything but whole numbers of at least one. Raises: InvalidValueError naming the option."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidValueError(f"{name} is {value!r}; it must be a positive whole number.")


def probability(**numbers: float) -> None:
    """Refuse anything outside [0, 1). Raises: InvalidValueError naming the option."""
    for name, value in numbers.items():
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise InvalidValueError(f"{name} is {value!r}; it must lie in [0, 1).")


def one_of(option: str, value: object, known: Collection[object]) -> None:
    """Refuse a value that is not among `known`. Raises: InvalidValueError naming the option."""
    if value not in known:
        raise InvalidValueError(f"{option} is {value!r}; it must be one of {', '.join(map(repr, known))}.")
