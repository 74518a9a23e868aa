"""How the client trains before it sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from invertigo.types.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Trainable parameters, by name, that the optimizer treats otherwise than the rest; None: as the rest."""

    names: tuple[str, ...]
    learning_rate: float | None = None
    learning_rates: tuple[float, ...] | None = None
    momentum: float | None = None
    dampening: float | None = None
    nesterov: bool | None = None
    maximize: bool | None = None
    weight_decay: float | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """One gradient (FedSGD: `sends="gradient"`) or the parameter difference after local steps (FedAvg).

    `mode` is the mode of the model during local training (PyTorch's `model.train()` or `model.eval()`);
    `shares_buffers` says whether BatchNorm's running statistics are sent along. `batch_size` is the size of a
    local step (None: the whole batch); batches are taken in order, without shuffling, each epoch anew.

    The optimizer is PyTorch's SGD, Adam or AdamW from rest, with its own hyper-parameters; `groups` holds the
    parameters that it treats otherwise. `learning_rates` gives a schedule, one rate for each step in turn. Where the
    steps of an epoch are uneven, `batch_sizes` lists their sizes; of a client that sends one gradient, it lists the
    micro-batches over which it accumulates, each of which goes through the model on its own.
    `weights` are the factors on their losses (default: each example counts the same, and all together one).

    Before each step the loss gets `l2 / 2` times the squared parameters and `proximal / 2` times the squared distance
    from the parameters that the client was sent (FedProx); then its gradient is clipped entry by entry at
    `clip_value`, then as a whole at norm `clip_norm`, as `torch.nn.utils` does.
    """

    mode: Literal["train", "eval"] = "train"
    sends: Literal["gradient", "difference"] = "gradient"
    learning_rate: float = 0.01
    momentum: float = 0.0
    epochs: int = 1
    batch_size: int | None = None
    shares_buffers: bool = False
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    dampening: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    learning_rates: tuple[float, ...] = ()
    groups: tuple[ParameterGroup, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    l2: float = 0.0
    proximal: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InvalidValueError(
                    f"LocalTraining.{name} is {getattr(self, name)!r}; it must be one of {allowed}."
                )
        # The rate of a schedule may be zero in its first step (warm-up), that of a recipe may not.
        if self.learning_rate <= 0:
            raise InvalidValueError(f"LocalTraining.learning_rate is {self.learning_rate}; it must be positive.")
        if not 0 <= self.momentum < 1:
            raise InvalidValueError(f"LocalTraining.momentum is {self.momentum}; it must lie in [0, 1).")
        if self.epochs < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise InvalidValueError(
                f"LocalTraining needs at least one epoch and a positive batch_size, "
                f"not epochs={self.epochs} and batch_size={self.batch_size}."
            )
        if self.sends == "gradient" and (self.epochs > 1 or self.batch_size is not None):
            raise InvalidValueError(
                "A client that sends one gradient takes no local steps; "
                "use sends='difference' with epochs and batch_size, or leave both at their defaults."
            )
        _check_numbers(self)
        _check_lists(self)

    def steps(self, num_examples: int) -> list[slice]:
        """The slice of the batch that each local step reads, in order."""
        if self.sends == "gradient":
            return [slice(0, num_examples)]
        return self._slices(num_examples) * self.epochs

    def parts(self, num_examples: int) -> list[tuple[slice, float]]:
        """The slices over which one gradient is accumulated, each with the factor on its (mean) loss."""
        slices = self._slices(num_examples)
        shares = [(part.stop - part.start) / num_examples for part in slices]
        return list(zip(slices, self.weights or shares))

    def rate(self, number: int) -> float:
        """The learning rate of local step `number`, which counts from 0."""
        return self.learning_rates[number] if self.learning_rates else self.learning_rate

    @property
    def plain(self) -> bool:
        """One gradient of the mean loss over the whole batch, as it is."""
        untouched = not (self.l2 or self.proximal or self.clip_norm or self.clip_value)
        return self.sends == "gradient" and untouched and not self.batch_sizes and not self.weights

    @property
    def linear(self) -> bool:
        """What is sent is a sum of the examples' gradients with one factor for all parameters.

        Then the ratio of a layer's weight and bias parts is that of its gradients; not so after Adam, with weight decay
        or another penalty, with clipping by value, or with a learning rate for each group.
        """
        if self.l2 or self.clip_value is not None:
            return False
        if self.sends == "gradient":
            return True
        bent = self.weight_decay or self.proximal or self.groups
        return self.optimizer == "sgd" and not bent

    def _slices(self, num_examples: int) -> list[slice]:
        if not self.batch_sizes:
            size = self.batch_size or num_examples
            return [slice(start, min(start + size, num_examples)) for start in range(0, num_examples, size)]
        if sum(self.batch_sizes) != num_examples:
            raise InvalidValueError(
                f"LocalTraining.batch_sizes={self.batch_sizes} are {sum(self.batch_sizes)} examples, but the batch "
                f"holds {num_examples}."
            )
        ends = [sum(self.batch_sizes[: k + 1]) for k in range(len(self.batch_sizes))]
        return [slice(end - size, end) for end, size in zip(ends, self.batch_sizes)]


_CHOICES = {
    "mode": ("train", "eval"),
    "sends": ("gradient", "difference"),
    "optimizer": ("sgd", "adam", "adamw"),
}


def _check_numbers(local: LocalTraining) -> None:
    for name in ("weight_decay", "l2", "proximal", "eps"):
        if getattr(local, name) < 0:
            raise InvalidValueError(f"LocalTraining.{name} is {getattr(local, name)}; it must not be negative.")
    for name in ("clip_norm", "clip_value"):
        value = getattr(local, name)
        if value is not None and value <= 0:
            raise InvalidValueError(f"LocalTraining.{name} is {value}; it must be positive, or None for no clipping.")
    if not all(0 <= beta < 1 for beta in local.betas):
        raise InvalidValueError(f"LocalTraining.betas is {local.betas}; both must lie in [0, 1).")
    if local.nesterov and (local.momentum <= 0 or local.dampening):
        raise InvalidValueError("Nesterov momentum needs momentum > 0 and dampening 0, as in PyTorch.")
    if local.optimizer != "sgd" and (local.momentum or local.dampening or local.nesterov):
        raise InvalidValueError(f"momentum, dampening and nesterov belong to SGD; {local.optimizer} has betas.")


def _check_lists(local: LocalTraining) -> None:
    if local.batch_sizes and (local.batch_size is not None or min(local.batch_sizes) < 1):
        raise InvalidValueError(
            f"LocalTraining.batch_sizes={local.batch_sizes} must be positive and stand instead of batch_size."
        )
    if local.weights and (local.sends != "gradient" or len(local.weights) != max(1, len(local.batch_sizes))):
        raise InvalidValueError(
            f"LocalTraining.weights={local.weights} are one factor for each of batch_sizes={local.batch_sizes} over "
            "which a client that sends one gradient accumulates."
        )
    count = local.epochs * len(local.batch_sizes) if local.batch_sizes else None
    for rates in (local.learning_rates, *(group.learning_rates for group in local.groups)):
        if rates and (min(rates) < 0 or (count is not None and len(rates) != count)):
            raise InvalidValueError(
                f"LocalTraining.learning_rates={rates} must be one non-negative rate for each local step"
                f"{f' ({count})' if count is not None else ''}."
            )
    names = [name for group in local.groups for name in group.names]
    if len(set(names)) < len(names):
        raise InvalidValueError("A parameter stands in two of LocalTraining.groups; each belongs to one.")
