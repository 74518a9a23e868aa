"""Weight matrices of a received model, row by row, without loading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invertigo.types import Local, Received

WEIGHED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Matrix:
    """A layer's weight as (row, feature), in float32 or wider: one row for each output unit or kernel."""

    name: str
    module: nn.Module
    weight: Tensor
    bias: Tensor | None
    head: bool
    reader: Tensor | None = None
    """Weight of the next linear layer, (output, row), when it reads exactly these rows."""

    @property
    def convolution(self) -> bool:
        """Rows are kernels."""
        return not isinstance(self.module, nn.Linear)


def matrices(received: Received, local: Local) -> list[Matrix]:
    """Every linear and convolutional layer of the client's model, with the tensors that the server sent for it."""
    named = [(n, m) for n, m in local.task.model.named_modules() if isinstance(m, WEIGHED)]
    names = {id(p): n for n, p in local.task.model.named_parameters()}
    linear = [n for n, m in named if isinstance(m, nn.Linear)]
    found: list[Matrix] = []
    for position, (name, module) in enumerate(named):
        weight = received.tensors.get(names.get(id(module.weight), ""))
        if weight is None or not weight.is_floating_point() or weight.numel() == 0:
            continue
        bias = None if module.bias is None else received.tensors.get(names[id(module.bias)])
        found.append(
            Matrix(
                name=name,
                module=module,
                weight=wide(weight).flatten(1),
                bias=None if bias is None else wide(bias),
                head=bool(linear) and name == linear[-1],
                reader=_reader(received, names, named[position + 1 :], len(weight)),
            )
        )
    return found


def wide(tensor: Tensor) -> Tensor:
    """Detached, in float32 at least."""
    tensor = tensor.detach()
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _reader(
    received: Received, names: dict[int, str], later: Sequence[tuple[str, nn.Module]], rows: int
) -> Tensor | None:
    if not later or not isinstance(later[0][1], nn.Linear) or later[0][1].in_features != rows:
        return None
    weight = received.tensors.get(names.get(id(later[0][1].weight), ""))
    return None if weight is None else wide(weight)
