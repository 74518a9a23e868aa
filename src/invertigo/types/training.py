"""How the client trains before it sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from invertigo.types.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """One gradient (FedSGD: `sends="gradient"`) or the parameter difference after local SGD steps (FedAvg).

    `mode` is the mode of the model during local training (PyTorch's `model.train()` or `model.eval()`);
    `shares_buffers` says whether BatchNorm's running statistics are sent along. `batch_size` is the size of a
    local step (None: the whole batch); batches are taken in order, without shuffling, each epoch anew.
    """

    mode: Literal["train", "eval"] = "train"
    sends: Literal["gradient", "difference"] = "gradient"
    learning_rate: float = 0.01
    momentum: float = 0.0
    epochs: int = 1
    batch_size: int | None = None
    shares_buffers: bool = False

    def __post_init__(self) -> None:
        for name in ("mode", "sends"):
            allowed = {"mode": ("train", "eval"), "sends": ("gradient", "difference")}[name]
            if getattr(self, name) not in allowed:
                raise InvalidValueError(
                    f"LocalTraining.{name} is {getattr(self, name)!r}; it must be one of {allowed}."
                )
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

    def steps(self, num_examples: int) -> list[slice]:
        """The slice of the batch that each local step reads, in order."""
        size = self.batch_size or num_examples
        epoch = [slice(start, min(start + size, num_examples)) for start in range(0, num_examples, size)]
        return epoch * self.epochs
