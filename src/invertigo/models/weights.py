"""Trained weights from a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from invertigo.types import InvalidValueError, check_fits, read_tensors

Model = TypeVar("Model", bound=nn.Module)


def load_weights(model: Model, path: str | Path) -> Model:
    """Set the model's parameters and buffers to those in the safetensors file at `path`; returns the model.

    Values are cast to the model's dtype and device. The model is untouched when anything does not fit.

    Raises: CorruptFileError; MismatchError for missing, extra or misshapen tensors; InvalidValueError for NaN.
    """
    tensors = read_tensors(path)
    check_fits(tensors, model.state_dict(), f"weights file {path}")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InvalidValueError(
                f"Tensor '{name}' of {path} holds NaN or Inf: training diverged. Nothing can be measured on that model."
            )
    model.load_state_dict(tensors)
    return model
