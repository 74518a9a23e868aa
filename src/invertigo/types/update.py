"""What crosses the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from invertigo.types.errors import InvalidValueError, MismatchError

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Update:
    """A client's message: a gradient, or the difference `after - before` of the parameters, by parameter name.

    `buffers` are the model's buffers after local training, when the client shares them. `rounding` is the error that
    the tensors carry from before they were an update, relative to their norm: a gradient read off two state dicts
    lost the digits in which these agree.
    """

    tensors: Mapping[str, Tensor]
    kind: Literal["gradient", "difference"]
    buffers: Mapping[str, Tensor] | None = None
    rounding: float = 0.0

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            if not torch.isfinite(tensor).all():
                bad = (~torch.isfinite(tensor)).sum().item()
                raise InvalidValueError(
                    f"The update's tensor '{name}' holds {bad} NaN or Inf of {tensor.numel()} values, so nothing can "
                    "be measured on it. The client's training diverged, or the update was damaged on its way."
                )

    @property
    def norm(self) -> float:
        """L2 norm over all tensors."""
        return torch.linalg.vector_norm(torch.stack([t.double().norm() for t in self.tensors.values()])).item()


def widened(tensor: Tensor) -> Tensor:
    """Half precision as float32 with the same values; anything else as it is."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def rounding(tensor: Tensor) -> float:
    """Machine epsilon of the coarsest type that holds `tensor`'s values: half precision shows after a cast back."""
    for dtype in HALVES:
        if torch.equal(tensor.to(dtype).to(tensor.dtype), tensor):
            return torch.finfo(dtype).eps
    return torch.finfo(tensor.dtype).eps


def check_fits(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], what: str = "update") -> None:
    """Refuse `tensors` that do not match `parameters` name by name and shape by shape.

    Raises: MismatchError naming the missing, the extra and the misshapen tensors (three of each at most).
    """
    missing = [name for name in parameters if name not in tensors]
    extra = [name for name in tensors if name not in parameters]
    shapes = [
        f"'{name}' is {tuple(tensors[name].shape)} but the model's is {tuple(parameters[name].shape)}"
        for name in parameters
        if name in tensors and tensors[name].shape != parameters[name].shape
    ]
    problems = [
        f"it lacks {_first(missing)}" if missing else "",
        f"it has {_first(extra)}, which the model does not know" if extra else "",
        f"{'; '.join(shapes[:3])}" if shapes else "",
    ]
    if any(problems):
        raise MismatchError(
            f"This {what} does not belong to this model: {'; '.join(p for p in problems if p)}. "
            "Use the model (same architecture, same trainable parameters) that the client trained; parameters that the "
            "client keeps to itself are frozen first: requires_grad_(False)."
        )


def _first(names: list[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:3])
    return listed + (f" and {len(names) - 3} more" if len(names) > 3 else "")
