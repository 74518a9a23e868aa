"""Does a network have kinks, where its update has no second-order model?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_KINKED = {
    F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.leaky_relu, F.hardtanh,
    F.hardsigmoid, F.hardswish, F.prelu, F.rrelu, F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool2d,
}  # fmt: skip


class KinkFinder(TorchFunctionMode):
    """Watches the calls inside the block; `found` tells whether one of them was piecewise linear (ReLU, max pooling).

    Functions and modules alike are seen, and the user's model is not touched.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the call and pass it on."""
        self.found = self.found or function in _KINKED
        return function(*args, **(kwargs or {}))
