"""Private data: named tensors with one leading batch dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invertigo.types.errors import InvalidValueError, MismatchError


@dataclass(frozen=True)
class Batch:
    """Named tensors that share their first dimension, e.g. `images` (batch, channel, height, width) and `labels`."""

    fields: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        sizes = {name: (tensor.shape[0] if tensor.ndim else 0) for name, tensor in self.fields.items()}
        if not sizes or min(sizes.values()) == 0:
            raise InvalidValueError(
                f"The batch is empty ({sizes or 'no fields'}): there is nothing private to measure. "
                "Pass at least one example, with the batch as first dimension."
            )
        if len(set(sizes.values())) > 1:
            raise MismatchError(f"The fields of a batch must hold the same number of examples, but they hold {sizes}.")
        for name, tensor in self.fields.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise InvalidValueError(
                    f"Field '{name}' of the batch holds NaN or Inf; clean the data before auditing it."
                )

    def __len__(self) -> int:
        return next(iter(self.fields.values())).shape[0]

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def select(self, indices: Tensor | Sequence[int] | slice) -> Batch:
        """The examples at `indices`, in that order."""
        return Batch({name: tensor[indices] for name, tensor in self.fields.items()})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """A copy on `device`; floating-point fields become `dtype`, integer fields keep theirs."""
        return Batch(
            {
                name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
                for name, tensor in self.fields.items()
            }
        )
