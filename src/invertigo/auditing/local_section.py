"""How a client trains, as a user writes it in a scenario."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from invertigo.types import InvalidValueError, LocalTraining

MOST_ROUNDS = 10_000
"""Epochs or rounds of any training in a scenario. No budget interrupts a training, so a slip must not last for days."""


class Section(BaseModel):
    """A part of what a user writes; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalSection(Section):
    """How the client trains before it sends; the fields of `LocalTraining`."""

    mode: Literal["train", "eval"] = "train"
    sends: Literal["gradient", "difference"] = "gradient"
    learning_rate: float = 0.01
    momentum: float = 0.0
    epochs: int = Field(1, ge=1, le=MOST_ROUNDS)
    batch_size: int | None = None
    shares_buffers: bool = False
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    learning_rates: tuple[float, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    l2: float = 0.0
    proximal: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None

    def build(self) -> LocalTraining:
        """The client's recipe."""
        return LocalTraining(**self.model_dump())

    @model_validator(mode="after")
    def _meaningful(self) -> LocalSection:
        try:
            self.build()
        except InvalidValueError as error:
            raise ValueError(str(error)) from error
        return self
